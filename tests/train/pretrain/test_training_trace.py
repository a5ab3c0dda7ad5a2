"""Sixty training steps, compared with the research code on the same batches."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from reference import FIXTURES, hf_name, one_row, parameters
from safetensors.numpy import load_file

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.heads import MaskedLM
from modernbert_jax.train.loss import masked_lm_loss
from modernbert_jax.train.optimizer import stable_adamw
from modernbert_jax.train.schedule import warmup_stable_decay

FOLDER = FIXTURES / "training_trace"


def weights(file: str) -> dict[str, np.ndarray]:
    return {hf_name(name): x for name, x in load_file(FOLDER / file).items()}


@pytest.fixture(scope="module")
def trace():
    return dict(np.load(FOLDER / "trace.npz"))


@pytest.fixture(scope="module")
def config():
    values = json.loads((FOLDER / "config.json").read_text())["config"]
    return ModernBertConfig(**values, pad_token_id=0)


@pytest.fixture(scope="module")
def run(trace, config):
    """Losses, and the final weights under their Hugging Face names."""
    module, start = MaskedLM(config), weights("initial.safetensors")
    params = parameters(config, lambda tensor, shape: start[tensor].reshape(shape))
    params = jax.tree.map(jnp.asarray, params)
    rates = jnp.asarray(trace["learning_rates"], jnp.float32)
    optimizer = stable_adamw(
        lambda count: rates[count],
        weight_decay=float(trace["weight_decay"]),
        peak_learning_rate=float(trace["peak_lr"]),
    )

    @jax.jit
    def step(params, state, batch):
        def mean_loss(params):
            total, count = masked_lm_loss(module, params, *batch)
            return total / count

        loss, grads = jax.value_and_grad(mean_loss)(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    state, losses = optimizer.init(params), []
    for ids, labels in zip(trace["input_ids"], trace["labels"], strict=True):
        batch = one_row(ids, labels, trace["cu_seqlens"])
        params, state, loss = step(params, state, batch)
        losses.append(float(loss))
    final = jax.tree.map(np.asarray, params)
    return np.array(losses), names.to_tensors(final, names.table(config, "masked_lm"))


def test_losses(run, trace):
    np.testing.assert_allclose(run[0], trace["losses"], atol=1e-4, rtol=0)


def test_final_weights(run):
    final, start = weights("final.safetensors"), weights("initial.safetensors")
    assert final.keys() == run[1].keys()
    for name, want in final.items():
        rms = np.sqrt(np.mean(want**2))
        assert np.sqrt(np.mean((want - start[name]) ** 2)) > 0.01 * rms, (
            name
        )  # the tensor was trained
        error = run[1][name] - want
        assert np.sqrt(np.mean(error**2)) <= 2e-4 * rms, name
        # In the first step a gradient near zero may have either sign at the same step size.
        assert np.abs(error).max() <= 1e-2 * rms, name


def test_the_decay_of_the_learning_rate_is_one_of_our_schedules(trace):
    rates, peak = trace["learning_rates"], float(trace["peak_lr"])
    schedule = warmup_stable_decay(peak, warmup=10, total=60, decay=10)
    steps = np.arange(60)
    # The trace counts the current step, ours the steps before it: its warm-up is one step ahead,
    # its decay is not.
    np.testing.assert_allclose(schedule(steps[10:]), rates[10:], rtol=1e-5)
    np.testing.assert_allclose(schedule(steps[:10] + 1), rates[:10], rtol=1e-5)

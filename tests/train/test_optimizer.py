"""StableAdamW against its rule, written out in float64 for each tensor by itself."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from modernbert_jax import configs
from modernbert_jax.train.engine import hyperparameters
from modernbert_jax.train.optimizer import matrices, stable_adamw

ROOT = Path(__file__).parents[2]
RATE, B1, B2, EPS, DECAY = 1e-2, 0.9, 0.98, 1e-6, 1e-3


def reference_step(t, p, g, m, v, rate, peak, decayed):
    """The research code's update with its debiased betas: new p, m, v, and whether it clipped."""
    h1, h2 = (b * (1 - b ** (t - 1)) / (1 - b**t) for b in (B1, B2))
    m, v = h1 * m + (1 - h1) * g, h2 * v + (1 - h2) * g * g
    rms = np.sqrt(np.mean(g * g / np.maximum(v, EPS**2)))
    rate /= max(1.0, rms)
    p = p * (1 - (DECAY * rate / peak if decayed else 0.0))
    return p - rate * m / (np.sqrt(v) + EPS), m, v, rms > 1 + 1e-6


def gradients(rng, t):
    """Gradients that now and then jump, so that some steps are clipped."""
    jump = 30.0 if t % 7 == 0 else 1.0
    return {
        "table": {"embedding": rng.normal(size=(12, 8)) * jump},
        "norm": {"scale": rng.normal(size=8), "bias": rng.normal(size=8) * jump},
        "groups": {
            "Wi": {
                "kernel": rng.normal(size=(3, 2, 8, 6)) * np.array([1, jump, 1]).reshape(3, 1, 1, 1)
            }
        },
    }


def tensors(tree):
    """Each tensor as a checkpoint has it: the stack taken apart. Name -> (array, decays)."""
    stack = tree["groups"]["Wi"]["kernel"]
    return {
        "embedding": (tree["table"]["embedding"], True),
        "scale": (tree["norm"]["scale"], False),
        "bias": (tree["norm"]["bias"], False),
        **{f"layer{i}": (stack[i], True) for i in range(3)},
    }


def test_follows_the_rule_per_tensor_and_per_layer():
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), gradients(rng, 1))
    schedule = lambda count: RATE * (0.5 + 0.5 * (count % 2))  # noqa: E731
    tx = stable_adamw(schedule, B1, B2, EPS, DECAY, peak_learning_rate=RATE)
    state = tx.init(params)
    update = jax.jit(tx.update)
    expected = {k: [np.asarray(x, np.float64), 0.0, 0.0] for k, (x, _) in tensors(params).items()}
    clipped = 0
    for t in range(1, 50):
        grads = gradients(rng, t)
        rate = float(schedule(t - 1))
        for name, (g, decayed) in tensors(grads).items():
            *expected[name], clips = reference_step(
                t, expected[name][0], g, *expected[name][1:], rate, RATE, decayed
            )
            clipped += clips
        updates, state = update(jax.tree.map(jnp.float32, grads), state, params)
        params = optax.apply_updates(params, updates)
    for name, (p, _) in tensors(params).items():
        np.testing.assert_allclose(p, expected[name][0], atol=2e-5)
    assert clipped > 20 and int(state.count) == 49


def test_decay_is_relative_to_the_peak():
    params = {"w": jnp.ones((2, 2))}
    zero = {"w": jnp.zeros((2, 2))}
    for rate, peak in ((0.1, None), (0.05, 0.1)):
        tx = stable_adamw(rate, weight_decay=0.01, peak_learning_rate=peak)
        updates, _ = tx.update(zero, tx.init(params), params)
        np.testing.assert_allclose(updates["w"], -0.01 * rate / (peak or rate), rtol=1e-6)


def test_masks():
    params = {
        "a": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
        "groups": {"n": {"scale": jnp.ones((3, 2)), "bias": jnp.ones((3, 2, 2))}},
    }
    assert matrices(params) == {
        "a": {"kernel": True, "bias": False},
        "groups": {"n": {"scale": False, "bias": False}},
    }
    tx = stable_adamw(0.1, weight_decay=0.5, decay_mask=lambda p: jax.tree.map(lambda _: False, p))
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    assert all(not leaf.any() for leaf in jax.tree.leaves(updates))


def test_a_schedule_needs_its_peak():
    with pytest.raises(ValueError, match="peak_learning_rate"):
        stable_adamw(lambda count: 0.1)


def test_a_weight_decay_that_erases_weights_is_warned_of():
    warning = hyperparameters.decay_warning(float(np.float32(1e-2)), float(np.float32(5e-5)))
    assert "weight decay 0.01 takes 1% off" in warning and "AdamW's 0.01 is 5e-07" in warning
    assert "--optimizer adamw" in warning
    rate = np.float32(7e-4)
    exact = hyperparameters.relative_decay(1e-3, 7e-4) * rate  # rounded to float32 twice
    assert hyperparameters.decay_warning(float(exact), float(rate))
    assert not hyperparameters.decay_warning(3e-4, 3e-3)  # Ettin's


def test_presets_and_documents_print_no_weight_decay_that_erases_weights():
    for kind in ("pretrain", "finetune"):
        for name in configs.presets(kind):
            config = configs.load(kind, name)
            for part in getattr(config, "stages", (config,)):
                taken = part.weight_decay  # by a step at the peak
                if config.optimizer == "adamw":
                    taken *= part.learning_rate
                assert taken < hyperparameters.LARGE_DECAY, name
    for path in [ROOT / "README.md", *ROOT.glob("docs/**/*.md")]:
        for line in path.read_text().splitlines():
            for number in re.findall(r"weight-decay[ =]([\d.e-]+)", line):
                assert float(number) < hyperparameters.LARGE_DECAY or "adamw" in line, line

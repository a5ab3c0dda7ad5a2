"""One step: microbatches that add up to the batch, and skipped steps."""

import dataclasses

import corpus
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from modernbert_jax.packing import Rows
from modernbert_jax.train.engine.guard import WINDOW, Guard, judge
from modernbert_jax.train.pretrain.config import PretrainConfig, Stage
from modernbert_jax.train.pretrain.objective import (
    MaskedLMObjective,
    MaskRule,
    hyperparameters,
    learner,
)

MASK = MaskRule(mask_id=3, vocab_size=96, special_ids=(0, 1, 2, 3))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    run = corpus.run_config(tmp_path_factory.mktemp("step"), "data", attention_dropout=0.0)
    return dataclasses.replace(run, model=tiny.config(num_hidden_layers=1))


@pytest.fixture(scope="module")
def step(config):
    """Steps by their number of microbatches, compiled once each."""
    stage = dataclasses.replace(config.stages[0], warmup_tokens=0)
    stages = {n: dataclasses.replace(stage, microbatch_rows=4 // n) for n in (1, 2)}
    return {n: step_of(config, stage) for n, stage in stages.items()}


def step_of(config, stage):
    config = dataclasses.replace(config, stages=(stage,))
    trainer = learner(MaskedLMObjective(config, stage, MASK))
    jitted, hyper = (
        trainer.train_step(trainer.shapes(jax.sharding.get_mesh())[0]),
        hyperparameters(config, stage),
    )
    return lambda state, batch: jitted(state, {}, hyper, batch)


@pytest.fixture
def state(config):
    trainer = learner(MaskedLMObjective(config, config.stages[0], MASK))
    state, fixed = trainer.initial(None, config.seed)
    assert not fixed and state.best is None
    return state._replace(params=tiny.randomised(state.params))


@pytest.fixture(scope="module")
def batch() -> Rows:
    """Rows with very different numbers of tokens, so that a mean of means would differ."""
    return Rows(*tiny.rows([[31, 33], [4], [9, 20], [60]], 64))


def numpy(tree):
    return jax.tree.map(np.array, tree)


def test_microbatches_add_up_to_the_batch(step, state, batch):
    whole, metrics = step[1](numpy(state), batch)
    parts, partial = step[2](numpy(state), batch)
    assert metrics.pop("microbatches") == 1 and partial.pop("microbatches") == 2
    for name, value in metrics.items():
        np.testing.assert_allclose(value, partial[name], rtol=2e-6, err_msg=name)
    moments = zip(*map(jax.tree.leaves, (whole.opt_state, parts.opt_state)), strict=True)
    for a, b in moments:
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-7 * np.abs(a).max())
    assert metrics["update_norm"] > 0 and not metrics["skipped_updates"]
    lengths = np.array([31, 33, 4, 9, 20, 60])
    assert metrics["tokens"] == lengths.sum() and metrics["pairs"] == (lengths**2).sum()
    norm = np.sqrt(sum(np.square(x).sum() for x in jax.tree.leaves(whole.params)))
    assert metrics["param_norm"] == pytest.approx(float(norm), rel=1e-5)


@pytest.mark.parametrize("reason", ["spike", "not finite"])
def test_a_bad_update_is_not_made(step, state, batch, reason):
    state = state._replace(step=jnp.int32(7))
    if reason == "spike":
        calm = Guard.new()._replace(mean=jnp.float32(0.1), made=jnp.int32(WINDOW))
        state = state._replace(guard=calm)
    else:
        state.params["encoder"]["final_norm"]["scale"] *= np.inf
    before = numpy(state)
    after, metrics = step[1](state, batch)
    assert (
        metrics["skipped_updates"] == metrics["skipped_in_a_row"] == 1
        and metrics["update_norm"] == 0
    )
    assert after.step == 8
    for name in ("params", "key", "opt_state"):
        kept = zip(*(jax.tree.leaves(getattr(s, name)) for s in (before, after)), strict=True)
        assert all(np.array_equal(a, b) for a, b in kept)


def test_another_stage_keeps_moments_and_corrects_the_decay():
    """Its rate and decay are its own: a weight loses its share at the peak of this very stage."""
    stage = {"tokens": 640, "length": 64, "rows": 1}
    first = Stage(name="a", peak_learning_rate=8e-4, warmup_tokens=320, **stage)
    second = Stage(name="b", peak_learning_rate=3e-4, weight_decay=0.1, **stage)
    bare = dataclasses.replace(second, weight_decay=0.0)
    config = PretrainConfig(model=tiny.config(), stages=(first, second, bare))
    params = {"kernel": jnp.full((2, 3), 5.0), "scale": jnp.ones(3)}
    grads = jax.tree.map(jnp.ones_like, params)

    def optimizer(stage, step):
        trainer = learner(MaskedLMObjective(config, stage, MASK))
        hyper = hyperparameters(config, stage)
        return trainer.optimizer(trainer.schedule(hyper, step), hyper.decay)

    state = optimizer(first, 0).init(params)
    for step in range(first.steps):
        _, state = optimizer(first, step).update(grads, state, params)
    nothing = jax.tree.map(jnp.zeros_like, params)
    (with_decay, after), (without, _) = (
        optimizer(s, 0).update(nothing, state, params) for s in (second, bare)
    )
    lost = with_decay["kernel"] - without["kernel"]
    np.testing.assert_allclose(lost, -0.1 * 5.0, rtol=1e-5)  # not 0.1 * 3e-4 / 8e-4
    assert np.array_equal(with_decay["scale"], without["scale"])
    np.testing.assert_allclose(after.mu["kernel"], 0.9 * state.mu["kernel"])
    assert np.abs(without["kernel"]).max() > 0 and after.count == first.steps + 1


def test_the_guard_s_judgement():
    rng = np.random.default_rng(0)
    guard, losses = Guard.new(), 5 + 0.1 * rng.standard_normal(300)
    judged = jax.jit(judge, static_argnames="deviations")
    for loss in losses:
        good, guard = judged(guard, jnp.float32(loss), jnp.float32(1), deviations=6.0)
        assert good
    assert guard.mean == pytest.approx(5, abs=0.05)
    assert float(guard.variance) ** 0.5 == pytest.approx(0.1, rel=0.3)
    for loss, norm, wanted in (
        (5.3, 1.0, True),
        (6.5, 1.0, False),
        (3.0, 1.0, True),
        (np.nan, 1.0, False),
        (5.0, np.inf, False),
    ):
        good, new = judged(guard, jnp.float32(loss), jnp.float32(norm), deviations=6.0)
        assert bool(good) is wanted
        assert new.skipped == new.in_a_row == (not wanted) and new.made == guard.made + wanted
    assert judged(guard, jnp.float32(6.5), jnp.float32(1), deviations=0.0)[0]
    young = guard._replace(made=jnp.int32(WINDOW - 1))
    assert judged(young, jnp.float32(6.5), jnp.float32(1), deviations=6.0)[0]
    again = guard._replace(in_a_row=jnp.int32(4), skipped=jnp.int32(9))
    assert judged(again, jnp.float32(5), jnp.float32(1), deviations=6.0)[1].in_a_row == 0
    bad = judged(again, jnp.float32(np.inf), jnp.float32(1), deviations=6.0)[1]
    assert bad.in_a_row == 5 and bad.skipped == 10 and np.isfinite(bad.mean)


def test_another_stage_has_another_loss():
    guard = Guard(*(jnp.float32(5), jnp.float32(1)), *(jnp.int32(x) for x in (200, 3, 2)))
    assert guard.restarted(jnp.bool_(False)) == guard
    fresh = guard.restarted(jnp.bool_(True))
    assert fresh.mean == fresh.variance == fresh.made == 0
    assert fresh.skipped == 3 and fresh.in_a_row == 2

"""The loss over predicted positions, against cross-entropy of all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from modernbert_jax.heads import MaskedLM
from modernbert_jax.train.loss import CHUNKS, masked_lm_loss, masked_lm_sums


@pytest.fixture(scope="module")
def case():
    config = tiny.config(num_hidden_layers=1)
    module = MaskedLM(config)
    batch = tiny.rows([[30, 11], [5, 3, 20]], 45)
    params = module.init(jax.random.key(0), *batch)["params"]
    return module, tiny.randomised(params), batch


def labels_for(batch, share, seed=0):
    chosen = np.random.default_rng(seed).random(batch.token_ids.shape) < share
    return np.where(chosen & (batch.segment_ids > 0), batch.token_ids, -100)


def by_definition(module, params, batch, labels):
    logits = module.apply({"params": params}, *batch)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.maximum(labels, 0))
    return jnp.where(labels >= 0, losses, 0.0).sum()


@pytest.fixture(scope="module")
def gradients(case):
    """Sum, count and gradients by our loss, and the sum and gradients by definition; compiled."""
    module, _, batch = case
    ours = lambda p, labels: masked_lm_loss(module, p, *batch, labels)  # noqa: E731
    theirs = lambda p, labels: by_definition(module, p, batch, labels)  # noqa: E731
    return jax.jit(jax.value_and_grad(ours, has_aux=True)), jax.jit(jax.value_and_grad(theirs))


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
def test_equals_the_definition_with_gradients(case, gradients, share):
    _, params, batch = case
    labels = labels_for(batch, share)
    ours, theirs = gradients
    (total, count), grads = ours(params, labels)
    wanted, wanted_grads = theirs(params, labels)
    assert int(count) == (labels >= 0).sum()
    np.testing.assert_allclose(total, wanted, rtol=1e-5)
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted_grads), strict=True):
        np.testing.assert_allclose(got, want, atol=2e-4 * (1 + float(jnp.abs(want).max())))


def test_counts_correct_predictions(case):
    module, params, batch = case
    best = np.asarray(module.apply({"params": params}, *batch).argmax(-1))
    labels = np.where(labels_for(batch, 0.3) >= 0, best, -100)
    labels[0, 3] = (best[0, 3] + 1) % 96
    sums = masked_lm_sums(module, params, *batch, labels)
    assert int(sums.metrics["masked_accuracy"]) == int(sums.count) - 1


def test_logits_are_never_whole(case):
    module, params, batch = case
    text = (
        jax.jit(lambda p: masked_lm_loss(module, p, *batch, labels_for(batch, 0.3)))
        .lower(params)
        .as_text()
    )
    piece = -(-45 // CHUNKS)
    assert f"2x{piece}x96xf32" in text and "2x45x96xf32" not in text

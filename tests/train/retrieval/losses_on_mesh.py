"""Losses over the whole batch in blocks and on eight devices; run by `test_losses.py`."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))

import loss_cases

from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.retrieval import losses

N = 13
"""Examples, which no mesh divides evenly."""


def all_losses(columns, guide, scores, labels, scale, valid, block_size):
    """Sum of losses in blocks, each with everything that it has."""
    ranking, gist = losses.LOSSES["multiple-negatives-ranking"], losses.LOSSES["gist"]
    every = loss_cases.CASES["multiple-negatives-ranking:every"].options["directions"]
    hard = {"hardness_mode": "all_negatives", "hardness_strength": 2.0}
    options = {"valid": valid, "block_size": block_size}
    lambda_loss = losses.RERANKER_LOSSES["lambda-loss"]
    return {
        "ranking": ranking(columns, scale=scale, directions=every, **hard, **options),
        "gist": gist(columns, guide=guide, temperature=1 / scale, **options),
        "lambda": lambda_loss(scores, labels, **options),
    }


def arrays():
    """Inputs of `all_losses`; one example does not exist."""
    rng = np.random.default_rng(0)
    columns, guide = rng.normal(size=(2, 3, N, 8)).astype(np.float32)
    scores = rng.normal(size=(4, N)).astype(np.float32)
    labels = rng.integers(0, 3, (N, 4))
    return (columns, guide, scores, labels, np.float32(4)), np.arange(N) != 5


def gradients(block_size: int):
    """Losses, and the gradients of their sum with respect to vectors, scores and scale."""

    def total(columns, scores, scale):
        values = all_losses(columns, guide, scores, labels, scale, valid, block_size)
        return sum(values.values()), values

    (columns, guide, scores, labels, scale), valid = arrays()
    compute = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True))
    (_, values), grads = compute(*map(jnp.asarray, (columns, scores, scale)))
    return jax.tree.map(np.asarray, [*values.values(), *grads])


def main() -> None:
    whole = gradients(0)
    assert all(np.abs(x).max() > 1e-3 for x in whole)
    same(gradients(3), whole)
    with jax.set_mesh(MeshShape(data=1, fsdp=2, context=2, tensor=2).make()):
        same(gradients(1), whole)


def same(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


if __name__ == "__main__":
    main()

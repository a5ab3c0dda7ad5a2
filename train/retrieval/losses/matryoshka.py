"""A loss of vectors and of their first dimensions, so that truncated vectors are good ones too."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from modernbert_jax.errors import UserError
from modernbert_jax.scoring.pairwise import unit

from . import inputs


def matryoshka(
    loss: Callable[..., jax.Array],
    dims: Sequence[int],
    weights: Sequence[float] | None = None,
    n_dims_per_step: int = -1,
    truncate_guide: bool = False,
) -> Callable[..., jax.Array]:
    """Sum a loss over vectors truncated to several dimensions (Kusupati et al. 2022).

    Args:
        loss: A loss of queries and documents.
        dims: Numbers of dimensions; that of the vectors should be one of them.
        weights: Weights of the dimensions; None means 1 each.
        n_dims_per_step: How many of the dimensions are drawn in a step; -1 takes all.
        truncate_guide: Whether the guide's vectors are truncated too.

    Returns:
        A loss with the arguments of `loss` and a `key`, which draws the dimensions of the step.
        Truncated vectors are divided by their norms.

    Raises:
        UserError: dimensions or weights that are none; when it is called also more dimensions than
            the vectors have, or no key where dimensions are drawn.
    """
    dims = tuple(dims)
    weights = (1.0,) * len(dims) if weights is None else tuple(weights)
    if not dims or any(dim < 1 for dim in dims) or len(set(dims)) < len(dims):
        raise UserError(f"matryoshka: dims {dims} must be different numbers above 0")
    if len(weights) != len(dims):
        raise UserError(f"matryoshka: {len(weights)} weights for {len(dims)} dims")
    draws = 0 < n_dims_per_step < len(dims)

    @functools.wraps(loss)
    def nested(
        query: jax.Array, documents: jax.Array, *args: Any, key: jax.Array | None = None, **options
    ) -> jax.Array:
        exists = options.get("valid"), options.get("mask")
        batch = inputs.vectors("matryoshka", query, documents, *exists)
        largest = batch.query.shape[-1]
        if max(dims) > largest:
            raise UserError(f"matryoshka: dims {dims} exceed the {largest} dimensions of vectors")
        if draws and key is None:
            raise UserError("matryoshka: n_dims_per_step needs a key")

        def truncated(dim: int) -> jax.Array:
            q, d = (unit(x[..., :dim]) for x in (batch.query, batch.documents))
            shorter = {}
            if truncate_guide and options.get("guide") is not None:
                shorter["guide"] = options["guide"][..., :dim]
            return loss(q, d, *args, **options | shorter)

        total = jnp.float32(0)
        taken = _drawn(key, len(dims), n_dims_per_step) if draws else None
        for i, (dim, weight) in enumerate(zip(dims, weights, strict=True)):
            if taken is None:
                total += weight * truncated(dim)
            else:
                part = functools.partial(truncated, dim)
                total += weight * jax.lax.cond(taken[i], part, lambda: jnp.float32(0))
        return total

    return nested


def _drawn(key: Any, count: int, number: int) -> jax.Array:
    """Draw `number` of `count` without replacement: bool [count]."""
    return jax.random.permutation(key, jnp.arange(count) < number)

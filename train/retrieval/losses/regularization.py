"""Regularizers that are added to a loss: vectors of different texts spread over all directions, and
sparse vectors have few weights.
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from modernbert_jax.errors import UserError
from modernbert_jax.scoring.pairwise import unit

from . import inputs


def global_orthogonal_regularization(
    query: jax.Array,
    documents: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    mean_weight: float = 1.0,
    second_moment_weight: float = 1.0,
    aggregation: Literal["mean", "sum"] = "mean",
) -> jax.Array:
    """Cosines of different texts of a column as those of random directions (Zhang et al. 2017).

    Penalises the square of their mean, and what their second moment has above 1 / E. Both follow
    from sums over vectors, so that memory grows with N alone.

    Args:
        query: Vectors [N, E].
        documents: Vectors [K, N, E] or [N, E].
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        mean_weight: Weight of the mean's square; 0 disables it.
        second_moment_weight: Weight of the second moment's excess; 0 disables it.
        aggregation: How columns are combined.

    Returns:
        The weighted sum of both, float32.

    Raises:
        UserError: shapes that do not fit, an unknown option, or nothing to penalise.
    """
    name = "global-orthogonal-regularization"
    inputs.one_of(name, "aggregation", aggregation, ("mean", "sum"))
    if not mean_weight and not second_moment_weight:
        raise UserError(f"{name}: mean_weight and second_moment_weight are both 0")
    batch = inputs.vectors(name, query, documents, valid, mask)
    vectors = unit(jnp.concatenate([batch.query[None], batch.documents]))
    exists = jnp.concatenate([batch.valid[None], batch.mask])
    vectors = jnp.where(exists[..., None], vectors, 0.0)

    def column(x: jax.Array, count: jax.Array) -> jax.Array:
        pairs = jnp.maximum(count * (count - 1), 1.0)
        own = jnp.square(x).sum(-1)
        mean = (jnp.square(x.sum(0)).sum() - own.sum()) / pairs
        gram = jnp.matmul(x.T, x, precision=jax.lax.Precision.HIGHEST)
        moment = (jnp.square(gram).sum() - jnp.square(own).sum()) / pairs
        excess = jax.nn.relu(moment - 1.0 / x.shape[-1])
        return mean_weight * jnp.square(mean) + second_moment_weight * excess

    columns = jax.vmap(column)(vectors, exists.sum(-1, dtype=jnp.float32))
    return columns.sum() if aggregation == "sum" else columns.mean()


def regularized(loss: Callable[..., jax.Array], weight: float) -> Callable[..., jax.Array]:
    """Add `global_orthogonal_regularization` times a weight to a loss of queries and documents."""

    @functools.wraps(loss)
    def both(query: jax.Array, documents: jax.Array, *args: Any, **options: Any) -> jax.Array:
        valid, mask = options.get("valid"), options.get("mask")
        penalty = global_orthogonal_regularization(query, documents, valid=valid, mask=mask)
        return loss(query, documents, *args, **options) + weight * penalty

    return both


def flops(vectors: jax.Array, exists: jax.Array) -> jax.Array:
    """FLOPS regularization (Paria et al. 2020): the sum over ids of the squared mean weight.

    It grows with the products that comparing two vectors takes, and so spreads weights over ids.

    Args:
        vectors: Vectors of J columns of N texts, [J, N, V].
        exists: Those that exist, bool [J, N].

    Returns:
        The sum, float32; 0 where no vector exists.
    """
    count = jnp.maximum(exists.sum(dtype=jnp.float32), 1.0)
    total = jnp.where(exists[..., None], vectors.astype(jnp.float32), 0.0).sum((0, 1))
    return jnp.square(total / count).sum()

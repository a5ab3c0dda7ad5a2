"""Similarities and distances of vectors with gradients, by their names in sentence-transformers."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Distance = Literal["cosine", "euclidean", "manhattan"]
DISTANCES = ("cosine", "euclidean", "manhattan")

_TINY = 1e-24
"""Square of the smallest norm that is divided by (PyTorch's `normalize` has 1e-12)."""


def unit(x: jax.Array) -> jax.Array:
    """Vectors [..., E] divided by their norms; zeros stay zeros, with a finite gradient."""
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), _TINY))


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """Dot products of a [n, E] and b [m, E]: [n, m], in full float32 on every device."""
    return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)


def cosine(a: jax.Array, b: jax.Array) -> jax.Array:
    """Cosines of the vectors [..., E]: [...]."""
    return dot(unit(a), unit(b))


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Dot products of the vectors [..., E]: [...]."""
    return (a * b).sum(-1)


def euclidean(a: jax.Array, b: jax.Array) -> jax.Array:
    """Negative Euclidean distances of the vectors [..., E]: [...]."""
    return -norm(a - b)


def manhattan(a: jax.Array, b: jax.Array) -> jax.Array:
    """Negative sums of absolute differences of the vectors [..., E]: [...]."""
    return -jnp.abs(a - b).sum(-1)


def norm(x: jax.Array) -> jax.Array:
    """Euclidean norms of vectors [..., E]: [...]; the gradient of a zero vector is zero."""
    squares = jnp.square(x).sum(-1)
    return jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


PAIRWISE: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cosine": cosine,
    "dot": dot,
    "euclidean": euclidean,
    "manhattan": manhattan,
}
"""Similarities of pairs by name; larger is more similar."""


def distance(name: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """Distances of the vectors [..., E] by the name of their similarity; of cosine, 1 - cosine."""
    similarity = PAIRWISE[name](a, b)
    return 1 - similarity if name == "cosine" else -similarity

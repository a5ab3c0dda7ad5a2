"""The best documents of every query so far, on the devices, while a corpus is searched."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.packing import power_of_two
from modernbert_jax.sharding import global_array

Best = tuple[jax.Array, jax.Array]
"""Scores float32 [Q, k] in descending order, and numbers of the documents int32 [Q, k]."""


def width(k: int, documents: int) -> int:
    """Places for the k best of so many documents: no more than there are, up to a power of two.

    So few programs are compiled, and a large k takes no memory for places without a document.
    """
    return min(k, power_of_two(documents))


def nothing(queries: int, k: int, mesh: Mesh) -> Best:
    """The best k of no documents."""
    whole = NamedSharding(mesh, P())
    scores = global_array(np.full((queries, k), -np.inf, np.float32), whole)
    return scores, global_array(np.full((queries, k), -1, np.int32), whole)


def merged(best: Best, scores: jax.Array, numbers: jax.Array, k: int) -> Best:
    """The best k of those so far and of later documents [Q, n]; traceable."""
    # Earlier documents stand first, and `top_k` prefers the first of equals.
    every = jnp.concatenate([best[0], scores], 1)
    chosen, places = jax.lax.top_k(every, min(k, every.shape[1]))
    return chosen, jnp.take_along_axis(jnp.concatenate([best[1], numbers], 1), places, 1)


def results(parts: Sequence[Best], queries: int, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores float32 [queries, k] and numbers int64 [queries, k] of all parts of the queries.

    Only the last part may have more queries than there are.
    """
    if not parts:
        return np.zeros((queries, k), np.float32), np.zeros((queries, k), np.int64)
    scores, numbers = (np.concatenate(part) for part in zip(*parts, strict=True))
    return scores[:queries, :k], numbers[:queries, :k].astype(np.int64)

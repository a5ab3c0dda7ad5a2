"""Key ranges: what each token of a packed row may see."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax


class KeyRanges(NamedTuple):
    """Inclusive first and last key of each query: int32 [B, T] each; empty where first > last.

    The relation is symmetric: the range of query i read as queries is what key i is seen by.
    """

    first: jax.Array
    last: jax.Array

    def allows(self, keys: jax.Array) -> jax.Array:
        """Whether each query [..., T] sees each of `keys` [S]: boolean [..., T, S]."""
        return (keys >= self.first[..., None]) & (keys <= self.last[..., None])

    @property
    def empty(self) -> jax.Array:
        """Queries that see nothing: boolean, shaped like `first`."""
        return self.first > self.last


def key_ranges(segment_ids: jax.Array, window: int | None = None) -> KeyRanges:
    """The keys of a query's own document, within `window` if given.

    Args:
        segment_ids: int32 [B, T]; 0 is padding, and each document one run of a positive id.
        window: query i sees key j where |i - j| <= window // 2; None is the whole document.

    Returns:
        Ranges that are empty for padding.
    """
    length = segment_ids.shape[1]
    here = jnp.arange(length, dtype=jnp.int32)[None]
    differs = segment_ids[:, 1:] != segment_ids[:, :-1]
    edge = jnp.ones_like(differs, shape=(segment_ids.shape[0], 1))
    starts = jnp.concatenate([edge, differs], axis=1)
    ends = jnp.concatenate([differs, edge], axis=1)
    first = lax.cummax(jnp.where(starts, here, 0), axis=1)
    last = lax.cummin(jnp.where(ends, here, length - 1), axis=1, reverse=True)
    if window is not None:
        first = jnp.maximum(first, here - window // 2)
        last = jnp.minimum(last, here + window // 2)
    return KeyRanges(first, jnp.where(segment_ids == 0, first - 1, last))

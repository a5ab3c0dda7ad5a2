"""Key ranges: the keys that each token and each block of tokens of a packed row may see.

Documents are contiguous in a row, so that segment and window together are one interval of keys:

    token      0  1  2  3  4  5  6  7        window 4: two tokens to each side
    segment    1  1  1  1  1  2  2  0
    first      0  0  0  1  2  5  5  .        padding sees nothing
    last       2  3  4  4  4  6  6  .
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

UNIT = 64
"""Tokens of a block summary; blocks of kernels are multiples of it."""

_NEVER = jnp.iinfo(jnp.int32).max


class Blocks(NamedTuple):
    """Key blocks that the queries of each block see together: int32 [B, T / size] each.

    They are `start`, ..., `start + number - 1`; `number` is 0 where no query sees a key. Keys from
    `full_first` to `full_last` are seen by every query of the block and need no mask.
    """

    start: jax.Array
    number: jax.Array
    full_first: jax.Array
    full_last: jax.Array


class Extremes(NamedTuple):
    """Extremes of the ranges of every `UNIT` queries: int32 [B, ceil(T / UNIT)] each."""

    lowest_first: jax.Array
    highest_first: jax.Array
    lowest_last: jax.Array
    highest_last: jax.Array


class KeyRanges(NamedTuple):
    """Inclusive first and last key of each query: int32 [B, T] each; empty where first > last.

    `queries` is the transposed relation, the first and last query that sees each key. It is None
    where the relation is symmetric, as in every encoder without hidden tokens.
    """

    first: jax.Array
    last: jax.Array
    extremes: Extremes
    queries: "KeyRanges | None" = None

    @classmethod
    def of(
        cls, first: jax.Array, last: jax.Array, queries: "KeyRanges | None" = None
    ) -> "KeyRanges":
        """Ranges with summaries of their blocks."""
        tail = -first.shape[1] % UNIT

        def by_unit(x, where_empty, reduce):
            x = jnp.where(first > last, where_empty, x)
            x = jnp.pad(x, ((0, 0), (0, tail)), constant_values=where_empty)
            return reduce(x.reshape(x.shape[0], -1, UNIT), axis=-1)

        # An empty range extends no bound of the keys to visit, and requires a mask.
        return cls(
            first,
            last,
            Extremes(
                lowest_first=by_unit(first, _NEVER, jnp.min),
                highest_first=by_unit(first, _NEVER, jnp.max),
                lowest_last=by_unit(last, -1, jnp.min),
                highest_last=by_unit(last, -1, jnp.max),
            ),
            queries,
        )

    @property
    def transposed(self) -> "KeyRanges":
        """Ranges of the queries that see each key."""
        return self if self.queries is None else self.queries

    @property
    def empty(self) -> jax.Array:
        """Queries without keys: boolean, in the shape of `first`."""
        return self.first > self.last

    def allows(self, keys: jax.Array) -> jax.Array:
        """Whether each query [..., T] sees each of `keys` [S]: boolean [..., T, S]."""
        return (keys >= self.first[..., None]) & (keys <= self.last[..., None])

    def blocks(self, size: int, key_size: int | None = None) -> Blocks:
        """Key blocks of `key_size` tokens that each block of `size` queries visits.

        Args:
            size: tokens in a block of queries, a multiple of `UNIT`. The last block may be shorter.
            key_size: tokens in a block of keys; None is `size`.
        """
        if size % UNIT:
            raise ValueError(f"blocks of {size} tokens: a multiple of {UNIT} is needed")
        tail = -self.extremes.lowest_first.shape[1] % (size // UNIT)

        def merge(x, where_empty, reduce):
            x = jnp.pad(x, ((0, 0), (0, tail)), constant_values=where_empty)
            return reduce(x.reshape(x.shape[0], -1, size // UNIT), axis=-1)

        e, key_size = self.extremes, key_size or size
        start = merge(e.lowest_first, _NEVER, jnp.min) // key_size
        stop = merge(e.highest_last, -1, jnp.max) // key_size + 1
        start = jnp.minimum(start, stop)
        return Blocks(
            start=start,
            number=stop - start,
            full_first=merge(e.highest_first, _NEVER, jnp.max),
            full_last=merge(e.lowest_last, -1, jnp.min),
        )


def key_ranges(
    segment_ids: jax.Array,
    window: int | None = None,
    *,
    causal: bool = False,
    visible: jax.Array | None = None,
) -> KeyRanges:
    """Ranges of the keys in a query's own document and window.

    Args:
        segment_ids: int32 [B, T]; 0 is padding, and each document one run of a positive id.
        window: query i sees key j where |i - j| <= window // 2; None is the whole document.
        causal: query i sees no key after i, as in a decoder.
        visible: boolean [B, T], the tokens that are keys; in each document the others come last.
            None is all. Excludes `causal`.

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
    if visible is not None:
        if causal:
            raise ValueError("visible and causal exclude each other")
        # The end of the document's visible part: after visible tokens, before the others.
        stops = visible & (ends | ~jnp.concatenate([visible[:, 1:], ~edge], axis=1))
        ahead = lax.cummin(jnp.where(stops, here, length - 1), axis=1, reverse=True)
        last_key = jnp.where(visible, ahead, lax.cummax(jnp.where(stops, here, -1), axis=1))
    if window is not None:
        first = jnp.maximum(first, here - window // 2)
        last = jnp.minimum(last, here + window // 2)
    padding = segment_ids == 0
    if visible is not None:
        queries = KeyRanges.of(first, jnp.where(padding | ~visible, first - 1, last))
        last = jnp.where(padding, first - 1, jnp.minimum(last, last_key))
        return KeyRanges.of(first, last, queries)
    if not causal:
        return KeyRanges.of(first, jnp.where(padding, first - 1, last))
    here = jnp.broadcast_to(here, first.shape)
    queries = KeyRanges.of(here, jnp.where(padding, here - 1, last))
    return KeyRanges.of(first, jnp.where(padding, first - 1, here), queries)

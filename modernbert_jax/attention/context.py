"""Attention where the `context` axis of a mesh divides the tokens of a row.

A sliding layer sees at most half a window beyond the edge of its piece, so that neighbours exchange
only that halo. A layer over whole documents gathers all keys and values. In both cases a device
computes its own queries, with key ranges that count from its first key:

    sliding     queries    |halo|  own piece  |halo|      zeros and keys of the neighbours
                keys       |halo|  own piece  |halo|
    full        queries           | own piece |
                keys       |......| own piece |......|     of all pieces

Queries of the halo are computed and discarded, because kernels for windows need the same tokens as
queries and keys. Their cotangents are zero, and so is their share in every gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.attention.ranges import UNIT, KeyRanges

AXIS = "context"


class Frame(NamedTuple):
    """Tokens over which a device computes."""

    length: int
    """Number of queries."""
    keys: int | None
    """Number of keys; None where they are the tokens of the queries."""
    symmetric: bool
    """Whether the relation of queries and keys is symmetric within the frame."""
    halo: int | None
    """Number of tokens of each neighbour; None gathers the whole row."""


def frame(length: int, pieces: int, window: int | None, symmetric: bool) -> Frame:
    """The frame for rows of `length` tokens that are divided into `pieces`."""
    if pieces == 1:
        return Frame(length, None, symmetric, None)
    piece = length // pieces
    halo = None if window is None else -(-(window // 2) // UNIT) * UNIT
    if halo is None or halo > piece:
        return Frame(piece, length, False, None)
    return Frame(piece + 2 * halo, None, symmetric, halo)


def enter(q, k, v, ranges: KeyRanges, shape: Frame):
    """A device's own q, k, v [B, T / pieces, N, H] and whole ranges, moved into its frame."""
    piece = q.shape[1]
    offset = lax.axis_index(AXIS) * piece
    if shape.halo is None:
        k, v = (lax.all_gather(x, AXIS, axis=1, tiled=True) for x in (k, v))
        return q, k, v, piece_of(ranges, offset, piece)
    q = jnp.pad(q, ((0, 0), (shape.halo, shape.halo), (0, 0), (0, 0)))
    k, v = (_with_halo(x, shape.halo) for x in (k, v))
    return q, k, v, _cut(ranges, offset - shape.halo, shape.length)


def leave(out: jax.Array, piece: int, shape: Frame) -> jax.Array:
    """A device's own part of the result [B, T, N, H] of its frame."""
    start = shape.halo or 0
    return out[:, start : start + piece]


def _with_halo(x: jax.Array, halo: int) -> jax.Array:
    """The piece between the adjacent ends of its neighbours; zeros at the ends of the row."""
    last = lax.axis_size(AXIS) - 1
    left = lax.ppermute(x[:, -halo:], AXIS, [(i, i + 1) for i in range(last)])
    right = lax.ppermute(x[:, :halo], AXIS, [(i + 1, i) for i in range(last)])
    return jnp.concatenate([left, x, right], axis=1)


def piece_of(ranges: KeyRanges, offset: jax.Array, piece: int) -> KeyRanges:
    """Ranges of `piece` queries from `offset` over all keys; queries count from `offset`."""
    first, last = (
        lax.dynamic_slice_in_dim(x, offset, piece, axis=1) for x in (ranges.first, ranges.last)
    )
    by_key = ranges.transposed
    return KeyRanges.of(
        first,
        last,
        KeyRanges.of(
            jnp.maximum(by_key.first - offset, 0), jnp.minimum(by_key.last - offset, piece - 1)
        ),
    )


def _cut(ranges: KeyRanges, offset: jax.Array, length: int) -> KeyRanges:
    """Ranges of `length` tokens from `offset` over these same tokens."""

    def cut(r: KeyRanges) -> tuple[jax.Array, jax.Array]:
        # Ranges are empty beyond the ends of the row.
        first = jnp.pad(r.first, ((0, 0), (length, length)), constant_values=1)
        last = jnp.pad(r.last, ((0, 0), (length, length)), constant_values=0)
        first, last = (
            lax.dynamic_slice_in_dim(x, offset + length, length, axis=1) for x in (first, last)
        )
        empty = first > last
        first, last = jnp.maximum(first - offset, 0), jnp.minimum(last - offset, length - 1)
        return first, jnp.where(empty, first - 1, last)

    queries = None if ranges.queries is None else KeyRanges.of(*cut(ranges.queries))
    return KeyRanges.of(*cut(ranges), queries)

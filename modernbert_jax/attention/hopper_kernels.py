"""FlashAttention over key ranges on Hopper: the three kernels.

A block computes the tokens of one head that its warpgroups own, 64 each. Tiles of the other side
pass through shared memory, all that one of the block's tokens sees. A warpgroup skips those that
none of its own tokens sees, and computes without a mask those that each of them sees whole:

    tiles of the block        first  .  .  .  .  .  .  .  .  stop
    of a warpgroup                   start  full  full  stop
                              skip   mask               mask   skip

The mathematics is that of `triton_kernels`.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from modernbert_jax.attention.hopper_pipeline import (
    AXES,
    Legs,
    Ref,
    accumulated,
    load,
    products,
    read,
    specialise,
    store,
)
from modernbert_jax.attention.hopper_tiles import OWN, Tile

_MASKED = -(2.0**100)
"""Score of masked keys. It is a power of two, so that its product with the scale is exact: the
weights of a row without keys in a tile are then 1, not the exponential of a rounding error."""

_NEVER = 2**30
"""First token of an empty range, after all tokens."""

_LOG2_E = math.log2(math.e)


class _Place(NamedTuple):
    """Where a block works, and the tiles that it visits."""

    row: jax.Array
    head: jax.Array
    block: jax.Array
    ranges: Sequence[Ref]
    """First and last [B, T] of the tokens, bounds of warpgroups and of blocks."""
    first: jax.Array
    stop: jax.Array

    @classmethod
    def here(cls, ranges: Sequence[Ref]) -> "_Place":
        row, head, block = (lax.axis_index(axis) for axis in AXES)
        bounds = ranges[3].at[row, block]
        return cls(row, head, block, ranges, bounds[0], bounds[3])

    def wide(self, ref: Ref) -> Ref:
        """The block's head in [B, T, N, H]: [T, H]."""
        return ref.at[self.row, :, self.head]

    def thin(self, ref: Ref) -> Ref:
        """The block's head in [B, N, T]: [T]."""
        return ref.at[self.row, self.head]

    def own(self, number: jax.Array, tile: Tile) -> "_Own":
        """The share of one of the block's warpgroups."""
        first_ref, last_ref, bounds_ref, _ = self.ranges
        share = self.block * tile.warpgroups + number
        tokens = pl.ds(share * OWN, OWN)
        first, last = (read(ref.at[self.row, tokens]) for ref in (first_ref, last_ref))
        bounds = (bounds_ref[self.row, share, n] for n in range(4))
        start, full_start, full_stop, stop = (jnp.clip(b, self.first, self.stop) for b in bounds)
        return _Own(
            tokens=tokens,
            first=jnp.where(first > last, _NEVER, first),
            width=jnp.where(first > last, 0, last - first),
            empty=first > last,
            full_start=full_start,
            full_stop=full_stop,
            legs=Legs(self.first, start, stop, self.stop),
        )


class _Own(NamedTuple):
    """Tokens of a warpgroup, their ranges and the tiles that they see."""

    tokens: slice | pl.Slice
    first: jax.Array
    width: jax.Array
    """First token that each sees, and the last one minus the first."""
    empty: jax.Array
    full_start: jax.Array
    full_stop: jax.Array
    """Tiles that all see whole: first, and last + 1."""
    legs: Legs

    def masked(self, scores: jax.Array, j: jax.Array) -> jax.Array:
        """Scores [OWN, step] with tile `j`, masked unless each token sees the whole tile."""

        def mask(scores):
            there = lax.broadcasted_iota(jnp.int32, scores.shape, 1) + j * scores.shape[1]
            # Without signs, what lies before the first token is large: one comparison, not two.
            offset = (there - _by_row(self.first, scores)).astype(jnp.uint32)
            width = _by_row(self.width, scores).astype(jnp.uint32)
            return jnp.where(offset <= width, scores, _MASKED)

        partial = (j < self.full_start) | (j >= self.full_stop)
        return lax.cond(partial, mask, lambda scores: scores, scores)


def attention_fwd(*refs, tile: Tile):
    """Compute o and lse of a block of queries."""
    q_ref, k_ref, v_ref, *ranges, o_ref, lse_ref, (q_own,), ready, ring = refs
    place = _Place.here(ranges)

    def copy():
        ring.fill([place.wide(k_ref), place.wide(v_ref)], place.first, place.stop)

    def compute(number):
        own = place.own(number, tile)
        q = q_own.at[number]
        load([place.wide(q_ref).at[own.tokens]], [q], ready.at[number])
        scale = _log2_scale(q)

        def body(j, tiles, carry):
            k, v = tiles
            o, m, l = carry  # noqa: E741, as in the paper
            (s,) = products((q, k))
            s = own.masked(s, j)
            m_next = jnp.maximum(m, jnp.max(s, axis=1) * scale)
            p = jnp.exp2(s * scale - _by_row(m_next, s))
            shrink = jnp.exp2(m - m_next)
            l = l * shrink + jnp.sum(p, axis=1)  # noqa: E741
            (o,) = accumulated((o * _by_row(shrink, o), p, v))
            return o, m_next, l

        start = jnp.zeros(q.shape, jnp.float32), jnp.full(OWN, _MASKED), jnp.zeros(OWN)
        o, m, l = ring.visit(own.legs, body, start)  # noqa: E741
        l = jnp.where(own.empty, 1.0, l)  # noqa: E741
        lse = jnp.where(own.empty, 0.0, m + jnp.log(l) * _LOG2_E)
        place.thin(lse_ref).at[own.tokens][...] = lse
        o *= _by_row(jnp.where(own.empty, 0.0, 1.0 / l), o)
        store([o], [q], [place.wide(o_ref).at[own.tokens]])

    specialise(tile, copy, compute)


def attention_dkv(*refs, tile: Tile):
    """Compute dk and dv of a block of keys, by the ranges of queries that see them."""
    q_ref, k_ref, v_ref, do_ref, lse_ref, delta_ref, *ranges, dk_ref, dv_ref = refs[:-3]
    kept_by_all, ready, ring = refs[-3:]
    place = _Place.here(ranges)

    def copy():
        sources = [place.wide(q_ref), place.wide(do_ref), place.thin(lse_ref)]
        ring.fill([*sources, place.thin(delta_ref)], place.first, place.stop)

    def compute(number):
        own = place.own(number, tile)
        k, v = kept = [memory.at[number] for memory in kept_by_all]
        load([place.wide(ref).at[own.tokens] for ref in (k_ref, v_ref)], kept, ready.at[number])
        scale = _log2_scale(k)

        def body(j, tiles, carry):
            q, do, lse, delta = tiles
            dk, dv = carry
            s, dp = products((k, q), (v, do))
            p = jnp.exp2(own.masked(s, j) * scale - _by_column(read(lse), s))
            ds = p * (dp - _by_column(read(delta), s))
            dk, dv = accumulated((dk, ds, q), (dv, p, do))
            return dk, dv

        zeros = jnp.zeros(k.shape, jnp.float32)
        dk, dv = ring.visit(own.legs, body, (zeros, zeros))
        targets = [place.wide(ref).at[own.tokens] for ref in (dk_ref, dv_ref)]
        store([dk * k.shape[1] ** -0.5, dv], kept, targets)

    specialise(tile, copy, compute)


def attention_dq(*refs, tile: Tile):
    """Compute dq of a block of queries."""
    q_ref, k_ref, v_ref, do_ref, lse_ref, delta_ref, *ranges, dq_ref = refs[:-3]
    kept_by_all, ready, ring = refs[-3:]
    place = _Place.here(ranges)

    def copy():
        ring.fill([place.wide(k_ref), place.wide(v_ref)], place.first, place.stop)

    def compute(number):
        own = place.own(number, tile)
        q, do = kept = [memory.at[number] for memory in kept_by_all]
        load([place.wide(ref).at[own.tokens] for ref in (q_ref, do_ref)], kept, ready.at[number])
        lse, delta = (read(place.thin(ref).at[own.tokens]) for ref in (lse_ref, delta_ref))
        scale = _log2_scale(q)

        def body(j, tiles, dq):
            k, v = tiles
            s, dp = products((q, k), (do, v))
            p = jnp.exp2(own.masked(s, j) * scale - _by_row(lse, s))
            ds = p * (dp - _by_row(delta, s))
            (dq,) = accumulated((dq, ds, k))
            return dq

        dq = ring.visit(own.legs, body, jnp.zeros(q.shape, jnp.float32))
        store([dq * q.shape[1] ** -0.5], [q], [place.wide(dq_ref).at[own.tokens]])

    specialise(tile, copy, compute)


def _log2_scale(x: Ref) -> float:
    return x.shape[1] ** -0.5 * _LOG2_E


def _by_row(x: jax.Array, like: jax.Array) -> jax.Array:
    """A value for each row, as a matrix."""
    return lax.broadcast_in_dim(x, like.shape, (0,))


def _by_column(x: jax.Array, like: jax.Array) -> jax.Array:
    """A value for each column, as a matrix."""
    return lax.broadcast_in_dim(x, like.shape, (1,))

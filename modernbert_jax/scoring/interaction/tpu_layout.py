"""Layout of the TPU kernels for MaxSim: blocks of whole rows, in which documents begin at slots.

A vector register holds eight rows of products. So that none has products of two documents, the
kernels move the tokens of a block to *slots*: counted tokens only, each document from a multiple of
eight on. The slots left over at its end repeat its last token, which changes no maximum:

    tokens    A A A . A A B C C C C C C C C C      . does not count
    slots     A A A A A a a a|B b b b b b b b|C C C C C C C C|C c c c c c c c
    granule   0               1               2               3

A product with a matrix of zeros and ones moves the tokens, exactly, once per block. Everything here
is computed with running sums and comparisons: scatters are slow on TPUs.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from . import numbering

GRANULE = 8
"""Slots of a granule: rows of a vector register."""

LANES = 128
"""Tokens, or slots, that are moved at a time; queries of a window."""


class Blocks(NamedTuple):
    """How rows of documents are divided into blocks."""

    rows: int
    """Rows of a block."""
    length: int
    """Tokens of a block, a multiple of 128; beyond those of its rows there is padding."""
    places: int
    """Texts of a block, at most, rounded up to a multiple of eight."""
    slots: int
    """Slots of a block, a multiple of `chunk`."""


class Slots(NamedTuple):
    """Slots of the tokens of each of B blocks."""

    first: jax.Array
    """The first slot of each token, int32 [B, length / 128, 128]; -1 if it does not count."""
    end: jax.Array
    """The slot after the last one of each token, likewise."""
    granules: jax.Array
    """Place of the text of each granule in the block, int32 [B, 1, slots / 8]; `places` if none."""
    chunks: jax.Array
    """Number of chunks of slots in use, int32 [B]."""
    sources: jax.Array
    """The first chunk of 128 tokens that has tokens for each 128 slots, and the one after the last,
    int32 [B, 2, slots / 128]."""


def blocks(rows: int, length: int, texts: int, target: int, chunk: int) -> Blocks:
    """Blocks of about `target` tokens for rows of `length` tokens with `texts` texts each."""
    divisors = [
        n for n in range(1, rows + 1) if rows % n == 0 and n * length <= max(target, length)
    ]
    even = [n for n in divisors if n * length % LANES == 0]
    together = max(even or divisors)
    tokens = up(together * length, LANES)
    places = together * texts
    slots = up(tokens + (GRANULE - 1) * min(places, tokens), chunk)
    return Blocks(together, tokens, up(places, GRANULE), slots)


def slots_of(segment_ids: jax.Array, texts: int, shape: Blocks, chunk: int) -> Slots:
    """Slots from segment ids [rows, T], in whose rows ids do not decrease but for zeros."""
    rows = jnp.arange(len(segment_ids), dtype=jnp.int32)[:, None] % shape.rows
    counts = (segment_ids > 0) & (segment_ids <= texts)
    place = jnp.where(counts, rows * texts + segment_ids - 1, -1).astype(jnp.int32)
    place = place.reshape(-1, shape.rows * segment_ids.shape[1])
    tail = shape.length - place.shape[1]
    place = jnp.pad(place, ((0, 0), (0, tail)), constant_values=-1)
    counts = place >= 0
    before = jnp.cumsum(counts, 1, dtype=jnp.int32) - counts
    first = counts & (place > _shifted(lax.cummax(place, axis=1), -1))
    later = lax.cummin(jnp.where(counts, place, shape.places), axis=1, reverse=True)
    last = counts & (jnp.flip(_shifted(jnp.flip(later, 1), shape.places), 1) > place)
    begins = _shifted(lax.cummax(jnp.where(first, before, 0), axis=1), 0)
    gap = jnp.where(first, (begins - before) % GRANULE, 0)
    slot = before + jnp.cumsum(gap, 1, dtype=jnp.int32)
    end = jnp.where(last, (slot // GRANULE + 1) * GRANULE, slot + 1)
    slot, end = (jnp.where(counts, x, -1) for x in (slot, end))
    used = end.max(1)
    at = jnp.arange(0, shape.slots, GRANULE, dtype=jnp.int32)[:, None]
    granules = jnp.where(slot[:, None] <= at, place[:, None], -1).max(-1)
    granules = jnp.where(at[:, 0] < used[:, None], granules, shape.places)
    at = jnp.arange(0, shape.slots, LANES, dtype=jnp.int32)[:, None]
    here = jnp.arange(shape.length, dtype=jnp.int32)
    inside = (slot[:, None] < at + LANES) & (end[:, None] > at) & counts[:, None]
    start = jnp.where(inside, here, shape.length).min(-1) // LANES
    stop = jnp.where(inside, here, -1).max(-1) // LANES + 1
    by_lanes = (len(slot), -1, LANES)
    return Slots(
        slot.reshape(by_lanes),
        end.reshape(by_lanes),
        granules[:, None],
        -(-jnp.maximum(used, 0) // chunk),
        jnp.stack([start, stop], 1),
    )


def windows(places: jax.Array) -> jax.Array:
    """The first window of 128 places that each tile of tokens has texts in, and the one after.

    Args:
        places: [tiles, tokens], -1 for tokens that do not count.

    Returns:
        int32 [2, tiles].
    """
    never = jnp.iinfo(jnp.int32).max
    start = jnp.where(places >= 0, places, never).min(1) // LANES
    stop = places.max(1) // LANES + 1
    return jnp.stack([jnp.minimum(start, stop), stop]).astype(jnp.int32)


def visits(places: jax.Array, own: jax.Array, queries: int) -> jax.Array:
    """The first tile that has tokens of the queries of each block's documents, and the one after
    the last: int32 [2, B].

    Args:
        places: [tiles, tokens], -1 for tokens that do not count.
        own: place of each document's query, [B, places]; negative for none.
        queries: number of places of queries.
    """
    tile = places.shape[1]
    start, stop, _ = (x[0] for x in numbering.spans(places.reshape(1, -1) + 1, queries))
    own = jnp.where(own < 0, queries, own)
    first = start.at[own].get(mode="fill", fill_value=places.size).min(1) // tile
    last = -(-stop.at[own].get(mode="fill", fill_value=0).max(1) // tile)
    return jnp.stack([jnp.minimum(first, last), last])


def _shifted(x: jax.Array, fill: int) -> jax.Array:
    """x [B, T] moved to the right by one token."""
    return jnp.pad(x, ((0, 0), (1, 0)), constant_values=fill)[:, :-1]


def up(n: int, unit: int) -> int:
    """The smallest multiple of `unit` that is at least n."""
    return -(-n // unit) * unit

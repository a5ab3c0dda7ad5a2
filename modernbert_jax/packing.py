"""Packing of documents of many lengths into rows of one length.

Best-fit decreasing: every row begins with the longest remaining document. One to three documents
that fill its room exactly follow, or else the longest that fits. On ten thousand documents of
natural lengths it fills more than 99.9 % of the tokens.
"""

import collections
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from modernbert_jax.errors import UserError

_SMALL = 1024
"""Largest room, in tokens, in which three documents are tried; larger rooms shrink soon."""

_TRIES = 64
"""Number of lengths tried for the first of three documents."""


TokenIds = Sequence[int] | np.ndarray


class Rows(NamedTuple):
    """Packed rows, int32 [B, T] each: the inputs of a model.

    Arrays of numpy or jax, or what stands for them in a tree, such as their shapes.
    """

    token_ids: Any
    segment_ids: Any
    """Number of a token's document in the row, from 1; 0 is padding."""
    positions: Any
    """Place of a token in its document, from 0."""


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n: a length that keeps compiled programs few."""
    return 1 << (n - 1).bit_length()


def pack(lengths: TokenIds, capacity: int, seed: int | Sequence[int] = 0) -> list[list[int]]:
    """Rows of document indices: every index once, with lengths of at most `capacity` in sum.

    The order of rows is shuffled, because the packer sorts by length. Takes O(n log n) time.

    Args:
        lengths: of the documents, in tokens.
        capacity: tokens in a row.
        seed: of the order; one number or several.

    Raises:
        UserError: a length below 1 or above the capacity, naming the document's index.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    wrong = np.flatnonzero((sizes < 1) | (sizes > capacity))
    if wrong.size:
        raise UserError(
            f"document {wrong[0]} has {sizes[wrong[0]]} tokens; a row takes 1 to {capacity}"
        )
    left = collections.defaultdict(list)  # documents by length, the first one last
    for index in range(len(sizes) - 1, -1, -1):
        left[int(sizes[index])].append(index)
    # Sets of lengths as bits: bit n of `have`, and bit capacity - n of `mirrored`. Their shifted
    # intersection has all pairs that fill a room.
    have = sum(1 << n for n in left)
    mirrored = sum(1 << (capacity - n) for n in left)

    def pair(room: int) -> list[int] | None:
        """The most uneven two lengths that fill a room: long documents are hard to place."""
        pairs = have & (mirrored >> (capacity - room))
        first = pairs.bit_length() - 1
        enough = pairs and (2 * first != room or len(left[first]) > 1)
        return [first, room - first] if enough else None

    def fill(room: int, fitting: int) -> list[int] | None:
        """Two or three lengths that fill a room."""
        lengths = pair(room)
        for _ in range(_TRIES if room <= _SMALL and not lengths else 0):
            if not fitting:
                break
            first = fitting.bit_length() - 1
            fitting ^= 1 << first
            lengths = pair(room - first)
            if lengths and len(left[first]) > lengths.count(first):
                return [first, *lengths]
            lengths = None
        return lengths

    rows: list[list[int]] = []
    while have:
        row: list[int] = []
        room = capacity
        while fitting := have & ((2 << room) - 1):
            chosen = [fitting.bit_length() - 1]
            if chosen[0] < room < capacity:
                chosen = fill(room, fitting) or chosen
            for n in chosen:
                row.append(left[n].pop())
                room -= n
                if not left[n]:
                    have ^= 1 << n
                    mirrored ^= 1 << (capacity - n)
        rows.append(row)
    np.random.default_rng(seed).shuffle(rows)
    return rows


def rows_from(
    documents: Sequence[TokenIds], rows: Sequence[Sequence[int]], length: int, pad_id: int = 0
) -> Rows:
    """Lay out documents of token ids in rows of `length` tokens, as `pack` assigned them."""
    return layout(
        [np.concatenate([documents[i] for i in row]) if row else () for row in rows],
        [[len(documents[i]) for i in row] for row in rows],
        length,
        pad_id,
    )


def layout(
    tokens: Sequence[TokenIds], lengths: Sequence[Sequence[int]], length: int, pad_id: int = 0
) -> Rows:
    """Rows from the joined tokens of each, and the lengths of the documents in them."""
    packed = Rows(*(np.zeros((len(tokens), length), np.int32) for _ in Rows._fields))
    packed.token_ids.fill(pad_id)
    for b, (ids, of_row) in enumerate(zip(tokens, lengths, strict=True)):
        sizes = np.asarray(of_row, np.int64)
        used = int(sizes.sum())
        starts = np.cumsum(sizes) - sizes
        packed.token_ids[b, :used] = ids
        packed.segment_ids[b, :used] = np.repeat(np.arange(1, len(sizes) + 1), sizes)
        packed.positions[b, :used] = np.arange(used) - np.repeat(starts, sizes)
    return packed

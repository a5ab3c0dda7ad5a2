"""The few shapes of the server's batches, and which waiting documents a batch takes.

A program is compiled for every shape when the server starts, and for none afterwards. Small shapes
answer a single short text soon; the largest one is filled with rows when many texts wait.
"""

from collections.abc import Sequence

from modernbert_jax.inference.shapes import FULL_ROW, SHORTEST_ROW, Shape, limited
from modernbert_jax.packing import pack, power_of_two

_GROWTH = 4
"""Ratio of consecutive row counts, and of row lengths beyond `FULL_ROW`: it keeps shapes few."""

_AHEAD = 2
"""Batches' worth of documents from which the fullest rows are chosen."""

Rows = list[list[int]]
"""Indices of the documents in each row."""


def ladder(longest: int, batch_tokens: int, pieces: int, documents: int) -> tuple[Shape, ...]:
    """All shapes of a server, in ascending order of their tokens.

    Args:
        longest: longest document in tokens.
        batch_tokens: tokens of a full batch on each device, but at least one row.
        pieces: devices that divide the rows of a batch among them.
        documents: documents in a row at most.
    """
    full = min(max(power_of_two(batch_tokens + 1) // 2, SHORTEST_ROW), FULL_ROW)
    lengths = [n for n in (SHORTEST_ROW, 2 * SHORTEST_ROW, FULL_ROW) if n <= full]
    while lengths[-1] < longest:
        lengths.append(min(_GROWTH * lengths[-1], power_of_two(longest)))
    counts, most = [1], max(batch_tokens // full, 1)
    while counts[-1] < most:
        counts.append(min(_GROWTH * counts[-1], most))
    sizes = {(1, length) for length in lengths} | {(count, full) for count in counts}
    sizes |= {(most * full // n, n) for n in lengths if full < n <= most * full}
    shapes = [Shape(rows=pieces * r, length=n, documents=documents) for r, n in sizes]
    return tuple(sorted(shapes, key=lambda shape: (shape.tokens, shape.length)))


def close(lengths: Sequence[int], shapes: Sequence[Shape]) -> tuple[Shape, Rows]:
    """The shape of the next batch, and the waiting documents in its rows.

    The batch takes all documents if one shape holds them, and then the smallest such shape.
    Otherwise it takes the first document, whose length decides the length of rows, and whatever
    fills the rows best.

    Args:
        lengths: of the waiting documents in their order, in tokens; at least one, none longer than
            the longest row.
        shapes: of the server, as `ladder` gives them.
    """
    everything = list(range(len(lengths)))
    if (whole := _whole(everything, lengths, shapes)) is not None:
        return whole
    full = min(FULL_ROW, max(s.length for s in shapes))
    length = min(s.length for s in shapes if s.length >= max(lengths[0], full))
    shape = max((s for s in shapes if s.length == length), key=lambda s: s.rows)
    chosen, tokens = [], 0
    for i in everything:
        if lengths[i] <= length:
            chosen.append(i)
            tokens += lengths[i]
            if tokens >= _AHEAD * shape.tokens or len(chosen) >= shape.rows * shape.documents:
                break
    if len(chosen) < len(lengths) and (whole := _whole(chosen, lengths, shapes)) is not None:
        return whole
    rows = _packed(chosen, lengths, shape)
    rows.sort(key=lambda row: (0 not in row, -sum(lengths[i] for i in row)))
    return shape, rows[: shape.rows]


def _whole(
    indices: list[int], lengths: Sequence[int], shapes: Sequence[Shape]
) -> tuple[Shape, Rows] | None:
    """The smallest shape that holds all of some documents, and their rows; None if none does."""
    total, longest = sum(lengths[i] for i in indices), max(lengths[i] for i in indices)
    for shape in shapes:
        if shape.length < longest or shape.tokens < total:
            continue
        if len(indices) <= shape.rows * shape.documents:
            rows = _packed(indices, lengths, shape)
            if len(rows) <= shape.rows:
                return shape, rows
    return None


def _packed(indices: list[int], lengths: Sequence[int], shape: Shape) -> Rows:
    """Rows of the documents, with at most as many in each as the shape allows."""
    packed = pack([lengths[i] for i in indices], shape.length)
    return [[indices[j] for j in row] for row in limited(packed, shape.documents)]

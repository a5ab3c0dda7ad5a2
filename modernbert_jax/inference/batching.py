"""Batches for inference: documents of any number and length, in packed rows of few shapes.

Row lengths and row counts are powers of two, so that XLA compiles a bounded number of programs
however many calls are made. Rows of 512 tokens pack tightly, and cost attention no more than short
ones, so that shorter rows are left to calls that cannot fill them.
"""

from collections.abc import Iterator, Sequence

from modernbert_jax.errors import UserError
from modernbert_jax.packing import Rows, pack, rows_from

SHORTEST_ROW = 128
"""Row lengths are this or a larger power of two."""

ORDINARY_ROW = 512
"""Documents up to this length share rows of it, if there are enough of them."""

ROW_DOCUMENTS = 64
"""Documents in a row at most, so that pooling has one shape per row length."""

Documents = Sequence[Sequence[int]]
"""Token ids of each."""


def batches(
    documents: Documents, batch_tokens: int, pieces: int = 1
) -> Iterator[tuple[Rows, list[list[int]]]]:
    """Packed batches of few shapes, each with the indices of the documents in its rows.

    A document goes into an ordinary row, a longer one into a row of the next power of two, where
    shorter ones fill what it leaves. Batches hold a power of two of rows, hardly any of them empty;
    documents without tokens are left out. Where a batch is cut into `pieces`, both `batch_tokens`
    and the power of two are those of a piece.
    """
    if batch_tokens < 1:
        raise UserError(f"batch_tokens is {batch_tokens}; it must be 1 or more")
    left = [i for i, ids in enumerate(documents) if len(ids)]
    shortest = _shortest([len(documents[i]) for i in left])
    need = [_power_of_two(max(len(ids), shortest)) for ids in documents]
    for length in sorted({need[i] for i in left}, reverse=True):
        rows = [[left[j] for j in row] for row in pack([len(documents[i]) for i in left], length)]
        # Shorter documents that did not end up beside a longer one wait for their own rows.
        rows = [row for row in rows if any(need[i] == length for i in row)]
        taken = {i for row in rows for i in row}
        left = [i for i in left if i not in taken]
        rows = [r[k : k + ROW_DOCUMENTS] for r in rows for k in range(0, len(r), ROW_DOCUMENTS)]
        while rows:
            count = pieces * _count(-(-len(rows) // pieces), max(1, batch_tokens // length))
            some, rows = rows[:count], rows[count:]
            yield rows_from(documents, some + [[]] * (count - len(some)), length), some


def _shortest(lengths: Sequence[int]) -> int:
    """A row length that these documents can fill, at most `ROW_DOCUMENTS` to a row."""
    fill = sum(lengths) * min(len(lengths), ROW_DOCUMENTS) // max(1, len(lengths))
    return min(max(SHORTEST_ROW, _power_of_two(fill + 1) // 2), ORDINARY_ROW)


def _count(rows: int, most: int) -> int:
    """Rows of the next batch: a power of two that leaves an eighth empty at the most."""
    above = _power_of_two(rows)
    count = above if rows >= above * 7 / 8 else above // 2
    return min(count, _power_of_two(most + 1) // 2)


def _power_of_two(n: int) -> int:
    """The smallest that is not less than n."""
    return 1 << (n - 1).bit_length()

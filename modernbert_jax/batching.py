"""Batches for inference: documents of any number and length, in packed rows of few shapes.

Row lengths and row counts are powers of two, so that XLA compiles a bounded number of programs
however many calls are made; packing keeps most of such a row full.
"""

from collections.abc import Iterator, Sequence

from modernbert_jax.errors import UserError
from modernbert_jax.packing import Rows, pack, rows_from

SHORTEST_ROW = 128
"""Row lengths are this or a larger power of two."""

ROW_DOCUMENTS = 64
"""Documents in a row at most, so that pooling has one shape per row length."""

Documents = Sequence[Sequence[int]]
"""Token ids of each."""


def batches(documents: Documents, batch_tokens: int) -> Iterator[tuple[Rows, list[list[int]]]]:
    """Packed batches of few shapes, each with the indices of the documents in its rows.

    A document goes into a row of the next power of two, or into what longer ones leave of theirs.
    Batches hold a power of two of rows, the last ones empty; documents without tokens are left out.
    """
    if batch_tokens < 1:
        raise UserError(f"batch_tokens is {batch_tokens}; it must be 1 or more")
    need = [_power_of_two(max(len(ids), SHORTEST_ROW)) for ids in documents]
    left = [i for i, ids in enumerate(documents) if len(ids)]
    for length in sorted({need[i] for i in left}, reverse=True):
        rows = [[left[j] for j in row] for row in pack([len(documents[i]) for i in left], length)]
        # Shorter documents that did not end up beside a longer one wait for their own rows.
        rows = [row for row in rows if any(need[i] == length for i in row)]
        taken = {i for row in rows for i in row}
        left = [i for i in left if i not in taken]
        rows = [r[k : k + ROW_DOCUMENTS] for r in rows for k in range(0, len(r), ROW_DOCUMENTS)]
        count = 1 << max(0, (batch_tokens // length).bit_length() - 1)
        for k in range(0, len(rows), count):
            some = rows[k : k + count]
            empty = [[]] * (_power_of_two(len(some)) - len(some))
            yield rows_from(documents, [*some, *empty], length), some


def _power_of_two(n: int) -> int:
    """The smallest that is not less than n."""
    return 1 << (n - 1).bit_length()

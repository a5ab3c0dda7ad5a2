"""Shapes of packed rows: their length, their number in a batch, and the documents in each.

A row holds at most `DOCUMENTS` documents, and a batch has few possible shapes, because XLA compiles
a program for each:

- Inference takes documents of any number and length. `plan` lays them out in batches whose row
  lengths and row counts are powers of two.
- A training run knows all its examples. `choose` finds the one shape that leaves the least padding,
  and `arrange` lays out a batch of examples in microbatches of it.
"""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.packing import pack, power_of_two
from modernbert_jax.platform import device

DOCUMENTS = 64
"""Largest number of documents in a row, so that pooling has one shape."""

SHORTEST_ROW = 128
"""Shortest row of `plan`, in tokens."""

FULL_ROW = 512
"""Length of rows in `plan` for documents that are not longer, if there are enough of them. Such
rows pack tightly, and cost attention no more than shorter ones."""

LONGEST_CHOSEN = 1024
"""Longest row that `choose` considers for shorter sequences, in tokens."""

_TRIALS = 16
"""Number of batches that `choose` lays out."""

_TRIAL_EXAMPLES = 4096
"""Largest number of examples in such a batch."""

_OVERHEAD_ON_CPU = 48
"""Fixed cost of a microbatch on CPU, in tokens: adding gradients, starting programs."""

_OVERHEAD = 1024
"""The same on accelerators, an estimate: reading weights and adding gradients cost some hundred
tokens, and launching the kernels of a base model as much again."""

_TWO_PASSES_ON_CPU = 1.0
"""Cost of a microbatch in two passes (forward; forward and backward), relative to one pass that
keeps the activations of the whole batch. On CPU, writing and reading them takes as long as
computing them again in small microbatches, which stay in the cache. Measured with 4 layers of
192."""

_TWO_PASSES = 4 / 3
"""The same on accelerators, by FLOPs."""

Lengths = Sequence[Sequence[int]]
"""Lengths of the sequences of each example, in tokens."""

Row = list[tuple[int, int]]
"""The (example, sequence) of every document in a row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Shape of a microbatch, and the largest number of microbatches."""

    rows: int
    length: int
    """Tokens in a row."""
    documents: int
    """Largest number of documents in a row."""
    microbatches: int = 1

    @property
    def tokens(self) -> int:
        """Tokens of a microbatch, with padding."""
        return self.rows * self.length


def plan(
    lengths: Sequence[int], batch_tokens: int, pieces: int = 1
) -> Iterator[tuple[Shape, list[list[int]]]]:
    """Batches of documents, each with its shape and the indices of the documents in its rows.

    A document goes into a row of `FULL_ROW` tokens, a longer one into a row of the next power of
    two, which shorter ones fill up. The number of rows is a power of two, of which at most an
    eighth is empty. Documents without tokens are left out.

    Args:
        lengths: of all documents, in tokens.
        batch_tokens: tokens of a batch, but at least one row.
        pieces: devices among which rows are divided; `batch_tokens` and the power of two apply to
            the rows of each.

    Raises:
        UserError: `batch_tokens` below 1.
    """
    if batch_tokens < 1:
        raise UserError(f"batch_tokens is {batch_tokens}; it must be 1 or more")
    left = [i for i, n in enumerate(lengths) if n]
    shortest = _shortest_row([lengths[i] for i in left])
    need = [power_of_two(max(n, shortest)) for n in lengths]
    for length in sorted({need[i] for i in left}, reverse=True):
        packed = pack([lengths[i] for i in left], length)
        rows = [[left[j] for j in row] for row in packed]
        # Rows of shorter documents alone wait for their own length.
        rows = [row for row in rows if any(need[i] == length for i in row)]
        taken = {i for row in rows for i in row}
        left = [i for i in left if i not in taken]
        rows = limited(rows, DOCUMENTS)
        while rows:
            of_piece = _row_count(-(-len(rows) // pieces), max(1, batch_tokens // length))
            shape = Shape(rows=pieces * of_piece, length=length, documents=DOCUMENTS)
            yield shape, rows[: shape.rows]
            rows = rows[shape.rows :]


def _shortest_row(lengths: Sequence[int]) -> int:
    """Length of a row that these documents can fill, with at most `DOCUMENTS` in it."""
    tokens = sum(lengths) * min(len(lengths), DOCUMENTS) // max(1, len(lengths))
    return min(max(SHORTEST_ROW, power_of_two(tokens + 1) // 2), FULL_ROW)


def _row_count(rows: int, most: int) -> int:
    """Rows of the next batch: a power of two, of which at most an eighth is empty."""
    above = power_of_two(rows)
    count = above if rows >= above * 7 / 8 else above // 2
    return min(count, power_of_two(most + 1) // 2)


def choose(
    lengths: Lengths,
    examples: int,
    most_tokens: int,
    *,
    pieces: tuple[int, int] = (1, 1),
    grouped: bool = False,
    coupled: bool = False,
) -> Shape:
    """The shape in which batches of `examples` examples have the least padding.

    It is a function of the lengths and the platform, not of a seed: a few batches are laid out in
    every candidate.

    Args:
        lengths: of all examples.
        examples: number of examples in a batch.
        most_tokens: tokens of a microbatch, but at least one row or example.
        pieces: devices among which rows, and tokens of a row, are divided.
        grouped: whether all sequences of an example have to be in one microbatch.
        coupled: whether a batch of several microbatches takes another forward pass, as where the
            loss looks at the whole batch.
    """
    width = max(len(of_one) for of_one in lengths) if grouped else 1
    trials = _trials(lengths, examples)
    shape = _cheapest(trials, lengths, width, most_tokens, pieces, coupled)
    microbatches = most_microbatches(lengths, examples, shape, grouped)
    return dataclasses.replace(shape, microbatches=microbatches)


def _trials(lengths: Lengths, examples: int) -> list[list[int]]:
    """Lengths of the sequences of a few random batches."""
    rng = np.random.default_rng(0)
    size = min(examples, len(lengths), _TRIAL_EXAMPLES)
    return [
        [n for i in rng.choice(len(lengths), size, replace=False) for n in lengths[i]]
        for _ in range(min(_TRIALS, -(-len(lengths) // size)))
    ]


def _cheapest(
    trials: Sequence[Sequence[int]],
    lengths: Lengths,
    width: int,
    most_tokens: int,
    pieces: tuple[int, int],
    coupled: bool,
) -> Shape:
    """The shape of the lowest cost over all trials, with rows and tokens that divide evenly."""
    on_cpu = device()[0] == "cpu"
    overhead = _OVERHEAD_ON_CPU if on_cpu else _OVERHEAD
    twice = (_TWO_PASSES_ON_CPU if on_cpu else _TWO_PASSES) if coupled else 1.0
    candidates: list[tuple[bool, float, Shape]] = []
    for length in _row_lengths(max(max(of_one) for of_one in lengths), pieces[1]):
        layouts = [pack(trial, length) for trial in trials]
        documents = max(len(row) for rows in layouts for row in rows)
        documents = min(DOCUMENTS, power_of_two(documents))
        counts = [sum(-(-len(row) // documents) for row in rows) for rows in layouts]
        enough = -(-(max(counts) * 33 // 32 + 1) // pieces[0]) * pieces[0]
        whole = {enough} if coupled else set()
        for rows in {*_row_counts(max(counts), width, pieces[0]), *whole}:
            used = sum(_passes(-(-count // rows), twice) for count in counts)
            shape = Shape(rows=rows, length=length, documents=documents)
            cost = used * (shape.tokens + overhead)
            candidates.append((shape.tokens > most_tokens, cost, shape))
    # If a single row or example exceeds the limit, the smallest shape is best.
    return min(candidates, key=lambda c: (c[0], c[0] * c[2].tokens, c[1]))[2]


def _passes(microbatches: int, twice: float) -> float:
    """Cost of microbatches, in those that are differentiated at once."""
    return microbatches * twice if microbatches > 1 else microbatches


def _row_lengths(longest: int, pieces: int) -> list[int]:
    """Candidate lengths of rows: those that hold the longest sequence and divide evenly."""
    lengths = [64, *range(128, LONGEST_CHOSEN + 1, 128), *(1 << k for k in range(11, 24))]
    fitting = [n for n in lengths if n >= longest and n % (8 * pieces) == 0]
    return [n for n in fitting if n <= LONGEST_CHOSEN] or fitting[:1]


def _row_counts(most: int, width: int, pieces: int) -> list[int]:
    """Candidate numbers of rows: powers of two times the pieces, up to the first that suffices."""
    counts = [pieces << k for k in range(11) if pieces << k >= width]
    return [n for i, n in enumerate(counts) if not i or counts[i - 1] < most]


def most_microbatches(lengths: Lengths, examples: int, shape: Shape, grouped: bool = False) -> int:
    """Upper bound on the microbatches of a batch of `examples` examples in a shape.

    Two rows of a packing hold more than one row's tokens together, or the packer would have joined
    them. The same applies to two consecutive microbatches of whole examples.
    """
    total = sum(sorted((sum(of_one) for of_one in lengths), reverse=True)[:examples])
    sequences = sum(sorted((len(of_one) for of_one in lengths), reverse=True)[:examples])
    rows = 2 * total // shape.length + 1 + sequences // shape.documents
    if grouped:
        return min(examples, 2 * (rows // shape.rows + 1))
    return -(-min(rows, sequences) // shape.rows)


def arrange(lengths: Lengths, shape: Shape, grouped: bool = False) -> list[list[Row]]:
    """Rows of (example, sequence) by microbatch, with every sequence once.

    Args:
        lengths: of the examples.
        shape: of the microbatches.
        grouped: whether all sequences of an example have to be in one microbatch.
    """
    if not grouped:
        rows = _rows_of(range(len(lengths)), lengths, shape)
        return [rows[k : k + shape.rows] for k in range(0, len(rows), shape.rows)]
    microbatches, first = [], 0
    while first < len(lengths):
        # As many examples as fit: the step doubles until they do not, then halves.
        end, rows = first + 1, _rows_of(range(first, first + 1), lengths, shape)
        more, growing = 1, True
        while more:
            tried = _rows_of(range(first, min(end + more, len(lengths))), lengths, shape)
            fits = end < len(lengths) and len(tried) <= shape.rows
            if fits:
                end, rows = min(end + more, len(lengths)), tried
            growing &= fits
            more = 2 * more if growing else more // 2
        microbatches.append(rows)
        first = end
    return microbatches


def _rows_of(examples: range, lengths: Lengths, shape: Shape) -> list[Row]:
    """Packed rows of all sequences of some examples."""
    sequences = [(i, j) for i in examples for j in range(len(lengths[i]))]
    packed = pack([lengths[i][j] for i, j in sequences], shape.length)
    return [[sequences[k] for k in row] for row in limited(packed, shape.documents)]


def limited(rows: Sequence[list[int]], documents: int) -> list[list[int]]:
    """Rows of at most so many documents; fuller ones are split."""
    return [row[k : k + documents] for row in rows for k in range(0, len(row), documents)]

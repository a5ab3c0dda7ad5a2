"""Shapes of packed batches: one for a whole run, so that a step is compiled once.

A batch of examples becomes rows, and rows become microbatches [B, T] of one shape. There is room
for as many of them as the longest examples could need; the step computes those that are in use. So
neither the seed nor a batch's lengths change a shape, and hardly a token is padding.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jax.sharding import Mesh

from modernbert_jax.attention.platform import device
from modernbert_jax.errors import UserError
from modernbert_jax.packing import pack
from modernbert_jax.sharding import RULES

from ..tasks import Example

DOCUMENTS = 64
"""Documents in a row at most."""

ORDINARY_ROW = 1024
"""Rows are not made longer than this without need."""

_SAMPLES = 16
"""Batches that are laid out to choose a shape."""

_SAMPLE_EXAMPLES = 4096
"""Examples in one of them at most."""

_OVERHEAD_ON_CPU = 48
"""What a microbatch costs beside its tokens, in tokens: adding up gradients, starting programs."""

_OVERHEAD = 1024
"""The same elsewhere, an estimate: reading weights and adding gradients are worth some hundred
tokens, and launching the kernels of a base model as much again."""

Lengths = Sequence[Sequence[int]]
"""Of each example's sequences, in tokens."""

Row = list[tuple[int, int]]
"""(example, sequence) of every document in a row."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a microbatch, and how many there may be."""

    rows: int
    length: int
    """Tokens in a row."""
    documents: int
    """In a row at most."""
    microbatches: int = 1

    @property
    def tokens(self) -> int:
        """In a microbatch, padding included."""
        return self.rows * self.length


def choose(
    lengths: Lengths,
    examples: int,
    most_tokens: int,
    *,
    pieces: tuple[int, int] = (1, 1),
    coupled: bool = False,
) -> Shape:
    """The shape in which batches of so many examples leave the least empty.

    It follows from the lengths and the platform, not from a seed: batches are laid out on trial.

    Args:
        lengths: of all examples.
        examples: in a batch.
        most_tokens: in a microbatch, but at least one row or example.
        pieces: devices among which rows, and tokens of a row, are divided.
        coupled: whether an example's sequences have to be in one microbatch.
    """
    width = max(len(of_one) for of_one in lengths) if coupled else 1
    trials = _trials(lengths, examples)
    shape = _best(trials, lengths, width, most_tokens, pieces)
    return dataclasses.replace(shape, microbatches=_most(lengths, examples, shape, coupled))


def _trials(lengths: Lengths, examples: int) -> list[list[int]]:
    """The sequences of a few random batches."""
    rng = np.random.default_rng(0)
    size = min(examples, len(lengths), _SAMPLE_EXAMPLES)
    return [
        [n for i in rng.choice(len(lengths), size, replace=False) for n in lengths[i]]
        for _ in range(min(_SAMPLES, -(-len(lengths) // size)))
    ]


def _best(
    trials: Sequence[Sequence[int]],
    lengths: Lengths,
    width: int,
    most_tokens: int,
    pieces: tuple[int, int],
) -> Shape:
    """The shape in which the trials cost least, for rows and tokens that divide into pieces."""
    overhead = _OVERHEAD_ON_CPU if device()[0] == "cpu" else _OVERHEAD
    found: list[tuple[bool, float, Shape]] = []
    for length in _row_lengths(max(max(of_one) for of_one in lengths), pieces[1]):
        laid_out = [pack(trial, length) for trial in trials]
        documents = max(len(row) for rows in laid_out for row in rows)
        documents = min(DOCUMENTS, 1 << (documents - 1).bit_length())
        counts = [sum(-(-len(row) // documents) for row in rows) for rows in laid_out]
        for rows in _row_counts(max(counts), width, pieces[0]):
            used = sum(-(-count // rows) for count in counts)
            shape = Shape(rows=rows, length=length, documents=documents)
            found.append((shape.tokens > most_tokens, used * (shape.tokens + overhead), shape))
    # A row, or an example, may need more than all that should be in memory.
    return min(found, key=lambda entry: (entry[0], entry[0] * entry[2].tokens, entry[1]))[2]


def _row_lengths(longest: int, pieces: int) -> list[int]:
    """Lengths worth trying: those that hold the longest sequence and divide evenly."""
    some = [64, *range(128, ORDINARY_ROW + 1, 128), *(1 << k for k in range(11, 24))]
    fitting = [n for n in some if n >= longest and n % (8 * pieces) == 0]
    return [n for n in fitting if n <= ORDINARY_ROW] or fitting[:1]


def _row_counts(most: int, width: int, pieces: int) -> list[int]:
    """Rows of a microbatch worth trying: powers of two, which most meshes divide evenly."""
    counts = [pieces << k for k in range(11) if pieces << k >= width]
    return [n for i, n in enumerate(counts) if not i or counts[i - 1] < most]


def _most(lengths: Lengths, examples: int, shape: Shape, coupled: bool) -> int:
    """Microbatches that no batch can exceed.

    Two rows of a packing hold more than one row's tokens together, or the packer would have made
    one of them; the same goes for two microbatches of whole examples that follow one another.
    """
    total = sum(sorted((sum(of_one) for of_one in lengths), reverse=True)[:examples])
    sequences = sum(sorted((len(of_one) for of_one in lengths), reverse=True)[:examples])
    rows = 2 * total // shape.length + 1 + sequences // shape.documents
    if coupled:
        return min(examples, 2 * (rows // shape.rows + 1))
    return -(-min(rows, sequences) // shape.rows)


def arrange(lengths: Lengths, shape: Shape, coupled: bool = False) -> list[list[Row]]:
    """Rows of (example, sequence), by microbatch; every sequence once."""
    if not coupled:
        everything = [(i, j) for i, of_one in enumerate(lengths) for j in range(len(of_one))]
        rows = _rows(everything, lengths, shape)
        return [rows[k : k + shape.rows] for k in range(0, len(rows), shape.rows)]
    found, first = [], 0
    while first < len(lengths):
        # As many examples as fit: ever more until it is too many, then ever fewer more.
        end, rows = first + 1, _of_examples(first, first + 1, lengths, shape)
        more, growing = 1, True
        while more:
            tried = _of_examples(first, min(end + more, len(lengths)), lengths, shape)
            fits = end < len(lengths) and len(tried) <= shape.rows
            if fits:
                end, rows = min(end + more, len(lengths)), tried
            growing &= fits
            more = 2 * more if growing else more // 2
        found.append(rows)
        first = end
    return found


def _of_examples(first: int, end: int, lengths: Lengths, shape: Shape) -> list[Row]:
    sequences = [(i, j) for i in range(first, end) for j in range(len(lengths[i]))]
    return _rows(sequences, lengths, shape)


def _rows(sequences: Row, lengths: Lengths, shape: Shape) -> list[Row]:
    packed = pack([lengths[i][j] for i, j in sequences], shape.length)
    rows = [[sequences[k] for k in row] for row in packed]
    n = shape.documents
    return [row[k : k + n] for row in rows for k in range(0, len(row), n)]


def lengths_of(examples: Sequence[Example]) -> list[list[int]]:
    """Of each example's sequences, in tokens."""
    return [[len(ids) for ids in example.sequences] for example in examples]


def check_mesh(mesh: Mesh, heads: int) -> tuple[int, int]:
    """Devices among which rows, and tokens of a row, are divided. Raises `UserError`."""
    sizes = dict(mesh.shape)
    rows, tokens, tensor = (
        int(np.prod([sizes[axis] for axis in axes]))
        for axes in (RULES.rows, RULES.tokens, RULES.heads)
    )
    if heads % tensor:
        raise UserError(
            f"{heads} attention heads cannot be divided among {tensor} devices (mesh.tensor);"
            " change it"
        )
    return rows, tokens

"""Batches of examples in packed rows of one shape, so that a step is compiled once.

A batch of examples becomes rows, and rows become microbatches [B, T] of one shape. There is room
for as many of them as the longest examples could need; the step computes those that are in use. So
neither the seed nor a batch's lengths change a shape, and hardly a token is padding.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from modernbert_jax.errors import UserError
from modernbert_jax.packing import Rows, pack, rows_from
from modernbert_jax.sharding import RULES

from ..tasks.example import Example
from .objectives import Objective, Place

DOCUMENTS = 64
"""Documents in a row at most."""

ORDINARY_ROW = 1024
"""Rows are not made longer than this without need."""

_SAMPLES = 16
"""Batches that are laid out to choose a shape."""

_SAMPLE_EXAMPLES = 4096
"""Examples in one of them at most."""

_OVERHEAD = 192
"""What a microbatch costs beside its tokens, in tokens: adding up gradients, starting programs."""

Lengths = Sequence[Sequence[int]]
"""Of each example's sequences, in tokens."""

Row = list[tuple[int, int]]
"""(example, sequence) of every document in a row."""


class Batch(NamedTuple):
    """A batch in A microbatches, numpy or jax arrays."""

    rows: Rows
    """int32 [A, B, T] each."""
    targets: np.ndarray
    """[A, B, ...], as the objective has them."""
    weights: np.ndarray
    """float32 [A, B, S] or [A, B, T]."""
    used: np.ndarray
    """How many of the microbatches hold anything, int32 []; the first ones."""


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

    It follows from the lengths alone, not from a seed: batches are laid out on trial.

    Args:
        lengths: of all examples.
        examples: in a batch.
        most_tokens: in a microbatch, but at least one row.
        pieces: devices among which rows, and tokens of a row, are divided.
        coupled: whether an example's sequences have to be in one microbatch.
    """
    longest = max(max(of_one) for of_one in lengths)
    width = max(len(of_one) for of_one in lengths) if coupled else 1
    rng = np.random.default_rng(0)
    size = min(examples, len(lengths), _SAMPLE_EXAMPLES)
    trials = [
        [n for i in rng.choice(len(lengths), size, replace=False) for n in lengths[i]]
        for _ in range(min(_SAMPLES, -(-len(lengths) // size)))
    ]
    best: tuple[float, Shape] | None = None
    for length in _row_lengths(longest, pieces[1]):
        laid_out = [pack(trial, length) for trial in trials]
        documents = max(len(row) for rows in laid_out for row in rows)
        documents = min(DOCUMENTS, 1 << (documents - 1).bit_length())
        counts = [sum(-(-len(row) // documents) for row in rows) for rows in laid_out]
        for rows in _row_counts(max(counts), width, pieces[0]):
            if rows > max(width, pieces[0]) and rows * length > most_tokens:
                break
            used = sum(-(-count // rows) for count in counts)
            cost = used * (rows * length + _OVERHEAD)
            if best is None or cost < best[0]:
                best = cost, Shape(rows=rows, length=length, documents=documents)
    shape = best[1]
    return dataclasses.replace(shape, microbatches=_most(lengths, examples, shape, coupled))


def _row_lengths(longest: int, pieces: int) -> list[int]:
    """Lengths worth trying: those that hold the longest sequence and divide evenly."""
    some = [64, *range(128, ORDINARY_ROW + 1, 128), *(1 << k for k in range(11, 24))]
    fitting = [n for n in some if n >= longest and n % (8 * pieces) == 0]
    return [n for n in fitting if n <= ORDINARY_ROW] or fitting[:1]


def _row_counts(most: int, width: int, pieces: int) -> list[int]:
    """Rows of a microbatch worth trying: multiples of the devices' number."""
    least = -(-width // pieces)
    counts = sorted(
        {*range(1, 9), *(1 << k for k in range(4, 11)), *(3 << k for k in range(2, 10))}
    )
    enough = next((n for n in counts if n * pieces >= most), counts[-1])
    return [n * pieces for n in sorted({least, *(n for n in counts if least <= n <= enough)})]


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


def fill(
    examples: Sequence[Example], rows: Sequence[Row], shape: Shape, objective: Objective
) -> Batch:
    """One microbatch (A = 1) from rows of (example, sequence); targets where there are any."""
    documents = [examples[i].sequences[j] for row in rows for i, j in row]
    numbers, k = [], 0
    for row in rows:
        numbers.append(list(range(k, k + len(row))))
        k += len(row)
    numbers += [[]] * (shape.rows - len(rows))
    laid_out = rows_from(documents, numbers, shape.length)
    places = shape.documents if objective.level == "document" else shape.length
    targets = objective.empty(shape.rows, places)
    weights = np.zeros((shape.rows, places), np.float32)
    groups: dict[int, int] = {}
    for b, row in enumerate(rows):
        start = 0
        for s, (i, j) in enumerate(row):
            at = Place(b, s, start, groups.setdefault(i, len(groups)))
            if examples[i].target is not None:
                objective.put(targets, weights, examples[i].target, j, at)
            start += len(examples[i].sequences[j])
    arrays = (*laid_out, targets, weights)
    *laid_out, targets, weights = (x[None] for x in arrays)
    return Batch(Rows(*laid_out), targets, weights, np.int32(1))


def stack(parts: Sequence[Batch], shape: Shape, objective: Objective) -> Batch:
    """A batch of all microbatches that there may be from those in use."""
    empty = fill([], [], shape, objective)
    padded = [*parts, *[empty] * (shape.microbatches - len(parts))]
    batch = jax.tree.map(lambda *x: np.concatenate(x), *(p._replace(used=()) for p in padded))
    return batch._replace(used=np.int32(len(parts)))


class TrainingBatches:
    """Every epoch is a permutation of all examples, cut into batches; the last one may be smaller.

    Which examples are in a batch follows from seed and step alone, and so does how they are packed.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        size: int,
        seed: int,
        shape: Shape,
        objective: Objective,
    ):
        """For batches of `size` examples."""
        self._examples, self._size, self._seed = examples, size, seed
        self.shape, self._objective = shape, objective
        self._lengths = lengths_of(examples)

    @property
    def per_epoch(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._examples) // self._size)

    def updates(self, epochs: float) -> int:
        """Batches in so many epochs."""
        return math.ceil(epochs * self.per_epoch)

    def examples_before(self, step: int) -> int:
        """Examples that were seen before update `step`."""
        epochs, number = divmod(step, self.per_epoch)
        return epochs * len(self._examples) + number * self._size

    def members(self, step: int) -> np.ndarray:
        """The examples of the batch that update `step` (from 0) is made with."""
        epoch, number = divmod(step, self.per_epoch)
        return self._order(epoch)[number * self._size : (number + 1) * self._size]

    @functools.lru_cache(maxsize=1)  # noqa: B019 (as long as the run)
    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._examples))

    def at(self, step: int) -> tuple[Batch, int]:
        """The batch of update `step`, from 0, and how many examples it has."""
        chosen = self.members(step)
        lengths = [self._lengths[i] for i in chosen]
        examples = [self._examples[i] for i in chosen]
        rows = arrange(lengths, self.shape, self._objective.coupled)
        if len(rows) > self.shape.microbatches:
            raise AssertionError(f"{len(rows)} microbatches; there is room for {self.shape}")
        parts = [fill(examples, of_one, self.shape, self._objective) for of_one in rows]
        return stack(parts, self.shape, self._objective), len(examples)


def evaluation_batches(
    examples: Sequence[Example], shape: Shape, objective: Objective
) -> Iterator[tuple[Batch, list[Row]]]:
    """Microbatches of all examples, each with the (example, sequence) of its documents."""
    for rows in arrange(lengths_of(examples), shape, objective.coupled):
        yield fill(examples, rows, shape, objective), rows


def place(batch: Batch, mesh: Mesh) -> Batch:
    """A batch, which every process has whole, over the devices of all."""
    if mesh.empty or mesh.size == 1:
        return batch

    def put(x: np.ndarray, *kinds: str | None) -> jax.Array:
        sharding = NamedSharding(mesh, RULES.spec(*kinds))
        return jax.make_array_from_callback(np.shape(x), sharding, lambda at: np.asarray(x)[at])

    rows = Rows(*(put(x, None, "rows", "tokens") for x in batch.rows))
    return Batch(
        rows, put(batch.targets, None, "rows"), put(batch.weights, None, "rows"), put(batch.used)
    )


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

"""Batches of texts in packed rows of one fixed shape, with what a loss over the batch needs."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from modernbert_jax.inference import shapes
from modernbert_jax.inference.shapes import Lengths, Shape
from modernbert_jax.packing import Rows

from ..examples import packing
from .sampling import Members, Sampler
from .texts import TextSet


class TextBatch(NamedTuple):
    """A batch of N examples in A microbatches, each of B rows with T tokens and S documents.

    Arrays of numpy or jax. Sequence j of example i has number i + N * j.
    """

    rows: Rows
    """Packed tokens, int32 [A, B, T] each."""
    documents: Any
    """Numbers of the documents, int32 [A, B, S]; N * J, which no sequence has, where there is
    none."""
    start: Any
    """Tokens at the start of the documents that the model treats apart, int32 [A, B, S]; see
    `TextSet.start`."""
    used: Any
    """Number of microbatches in use, int32 scalar; the others are empty."""
    valid: Any
    """Examples that exist, bool [N]."""
    present: Any
    """Sequences that exist, bool [J, N]."""
    targets: Any
    """Targets, float32 [N, M]."""
    guide: Any
    """A guide's vectors of the texts, float32 [C, N, G]; G is 0 without one."""
    loss: Any = np.int32(0)
    """Number of the loss of the batch, int32 scalar; see `RetrievalObjective.losses`."""
    progress: Any = np.float32(0)
    """Share of the run's steps before this one, float32 scalar."""


class Guide(NamedTuple):
    """Vectors of the texts of a data set by another model."""

    vectors: np.ndarray
    """Vectors of `TextSet.strings`, float32 [texts, G], in memory or in a file."""

    def of(self, texts: np.ndarray) -> np.ndarray:
        """Vectors of texts, int [N, C]: [C, N, G]; zero for those below 0."""
        found = self.vectors[np.maximum(texts.T, 0)].astype(np.float32)
        return np.where((texts.T >= 0)[..., None], found, 0)


class Batches:
    """The batches of some data sets in one shape."""

    def __init__(
        self,
        sets: Sequence[TextSet],
        shape: Shape,
        examples: int,
        *,
        targets: int,
        columns: int,
        guides: Sequence[Guide | None] = (),
        losses: Sequence[int] = (),
    ):
        """Prepare.

        Args:
            sets: the data sets.
            shape: the fixed shape of microbatches.
            examples: number of examples in the arrays of a batch, N.
            targets: number of targets of an example, M.
            columns: number of sequences of an example, J.
            guides: one for each data set, None where its loss takes none; empty without a guide.
            losses: numbers of the losses of the data sets; empty where all have the same.
        """
        self.sets, self.shape, self.examples = sets, shape, examples
        self._targets, self._columns, self._guides = targets, columns, guides
        self._losses = losses
        widths = (guide.vectors.shape[-1] for guide in guides if guide is not None)
        self._guide_width = max(widths, default=0)
        self._fits = max(_mean(x.lengths()) for x in sets) * examples <= shape.tokens

    def of(self, members: Members, at_once: bool = False) -> TextBatch:
        """The batch of some examples.

        Args:
            members: the examples.
            at_once: whether the batch may have a single microbatch instead of the shape's number,
                for the program that differentiates it in one pass. It has one only where most
                batches do, so that few examples at the end of an epoch need no program of their
                own.
        """
        dataset, chosen = self.sets[members.dataset], members.examples
        width, count = self.examples, len(chosen)
        numbers = dataset.of_batch(chosen)
        sequences = [[dataset.tokens[i] for i in row[row >= 0]] for row in numbers]
        arranged = shapes.arrange(packing.lengths_of(sequences), self.shape)
        if len(arranged) > self.shape.microbatches:
            raise AssertionError(f"{len(arranged)} microbatches; there is room for {self.shape}")
        nothing = width * self._columns
        lay_out = functools.partial(packing.laid_out, shape=self.shape, stride=width, empty=nothing)
        parts = [lay_out(sequences, rows) for rows in arranged]
        capacity = 1 if self._fits and len(parts) == 1 and at_once else self.shape.microbatches
        rows, documents = packing.stacked(parts, lay_out([], []), capacity)
        start = np.zeros(nothing + 1, np.int32)
        present = np.zeros((self._columns, width), bool)
        present[: numbers.shape[1], :count] = numbers.T >= 0
        of_sequences = start[:-1].reshape(self._columns, width)
        of_sequences[: numbers.shape[1], :count] = dataset.starts(numbers.T)
        targets = np.zeros((width, self._targets), np.float32)
        own = dataset.targets[chosen]
        targets[:count, : own.shape[1]] = own
        return TextBatch(
            rows=rows,
            documents=documents,
            start=start[documents],
            used=np.int32(len(parts)),
            valid=np.arange(width) < count,
            present=present,
            targets=targets,
            guide=self._guide(members),
            loss=np.int32(self._losses[members.dataset] if self._losses else 0),
        )

    def _guide(self, members: Members) -> np.ndarray:
        vectors = np.zeros((self._columns, self.examples, self._guide_width), np.float32)
        guide = self._guides[members.dataset] if self._guides else None
        if guide is not None:
            own = guide.of(self.sets[members.dataset].texts[members.examples])
            vectors[: own.shape[0], : own.shape[1]] = own
        return vectors


class TrainingBatches(NamedTuple):
    """The batches of a run by step."""

    batches: Batches
    sampler: Sampler
    steps: int = 1
    """Steps of the run."""

    def at(self, step: int) -> tuple[TextBatch, int]:
        """The batch of a step, counted from 0, and its number of examples."""
        members = self.sampler.members(step)
        batch = self.batches.of(members, at_once=True)
        return batch._replace(progress=np.float32(step / self.steps)), len(members.examples)


def in_order(batches: Batches) -> Iterator[tuple[Members, TextBatch]]:
    """All examples of all data sets in their order, in the fewest batches, of about one size.

    So no example is alone in the last batch, where it has no others to compare it with.
    """
    for number, dataset in enumerate(batches.sets):
        for chosen in np.array_split(np.arange(len(dataset)), -(-len(dataset) // batches.examples)):
            yield (members := Members(number, chosen)), batches.of(members)


def shape_of(
    sets: Sequence[TextSet],
    examples: int,
    most_tokens: int,
    pieces: tuple[int, int],
    coupled: bool = True,
) -> Shape:
    """The one shape in which batches of any of the data sets leave the least padding.

    Args:
        sets: the data sets.
        examples: number of examples in a batch.
        most_tokens: tokens of a microbatch, but at least one row.
        pieces: devices among which rows, and tokens of a row, are divided.
        coupled: whether the loss looks at the whole batch.
    """
    lengths = [dataset.lengths() for dataset in sets]
    most = [dataset.longest() for dataset in sets]
    heaviest = lengths[int(np.argmax([_mean(of_set) for of_set in lengths]))]
    longest = max((of_one for of_set in most for of_one in of_set), key=max)
    shape = shapes.choose(
        [*heaviest, longest], examples, most_tokens, pieces=pieces, coupled=coupled
    )
    number = max(shapes.most_microbatches(of_set, examples, shape) for of_set in most)
    return dataclasses.replace(shape, microbatches=number)


def _mean(lengths: Lengths) -> float:
    """Mean tokens of an example."""
    return sum(map(sum, lengths)) / len(lengths)


def place(batch: TextBatch, mesh: Mesh) -> TextBatch:
    """Shard a batch over the devices of all processes; each process holds the whole batch."""
    documents, start = (
        packing.place(x, mesh, None, "rows") for x in (batch.documents, batch.start)
    )
    return TextBatch(
        packing.place_rows(batch.rows, mesh),
        documents,
        start,
        *(packing.place(x, mesh) for x in batch[3:]),
    )

"""Batches of examples in packed rows of one fixed shape."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from modernbert_jax.inference.shapes import Row, Shape, arrange
from modernbert_jax.packing import Rows

from ..examples import packing
from ..tasks import Example
from .losses import Place, TaskLoss


class ExampleBatch(NamedTuple):
    """A batch of A microbatches, each of B rows with T tokens and up to S documents.

    Arrays of numpy or jax, as in `Rows`.
    """

    rows: Rows
    """Packed tokens, int32 [A, B, T] each."""
    targets: Any
    """Targets of the loss, [A, B, ...]; see `TaskLoss.empty`."""
    weights: Any
    """Weights of the targets, float32 [A, B, S] or [A, B, T]."""
    documents: Any
    """Numbers of the documents, int32 [A, B, S], unique in the batch."""
    used: Any
    """Number of microbatches in use, int32 scalar; the others are empty."""


def fill(
    examples: Sequence[Example], rows: Sequence[Row], shape: Shape, task_loss: TaskLoss
) -> ExampleBatch:
    """Build one microbatch (A = 1).

    Args:
        examples: the examples of the batch; those without a target get weight 0.
        rows: the contents of each row, as pairs (example, sequence).
        shape: the fixed shape of microbatches.
        task_loss: the loss, which lays out the targets.
    """
    laid_out, numbers = packing.laid_out([e.sequences for e in examples], rows, shape)
    places = shape.documents if task_loss.level == "document" else shape.length
    targets = task_loss.empty(shape.rows, places)
    weights = np.zeros((shape.rows, places), np.float32)
    groups: dict[int, int] = {}
    for b, row in enumerate(rows):
        start = 0
        for s, (i, j) in enumerate(row):
            at = Place(b, s, start, groups.setdefault(i, len(groups)))
            if examples[i].target is not None:
                task_loss.put(targets, weights, examples[i].target, j, at)
            start += len(examples[i].sequences[j])
    batch = ExampleBatch(laid_out, targets, weights, numbers, np.int32(1))
    return jax.tree.map(lambda x: x[None] if x.ndim else x, batch)


def stack(parts: Sequence[ExampleBatch], shape: Shape, task_loss: TaskLoss) -> ExampleBatch:
    """Combine the microbatches in use into a batch, and fill it up with empty ones."""
    empty, *singles = (
        jax.tree.map(lambda x: x[0], part._replace(used=()))
        for part in (fill([], [], shape, task_loss), *parts)
    )
    batch = packing.stacked(singles, empty, shape.microbatches)
    return batch._replace(used=np.int32(len(parts)))


class TrainingBatches:
    """The batches of a run: each epoch is a permutation of all examples, cut into batches.

    The last batch of an epoch may be smaller. The examples of a batch and their packing depend only
    on seed and step.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        size: int,
        seed: int,
        shape: Shape,
        task_loss: TaskLoss,
    ):
        """Set up the batches.

        Args:
            examples: the training examples.
            size: number of examples in a batch.
            seed: seed of the order of examples.
            shape: the fixed shape of microbatches.
            task_loss: the loss, which lays out the targets.
        """
        self._examples, self._size, self._seed = examples, size, seed
        self.shape, self._task_loss = shape, task_loss
        self._lengths = lengths_of(examples)

    @property
    def per_epoch(self) -> int:
        """Number of batches in an epoch."""
        return -(-len(self._examples) // self._size)

    def steps(self, epochs: float) -> int:
        """Return the number of steps in a number of epochs, rounded up."""
        return math.ceil(epochs * self.per_epoch)

    def examples_before(self, step: int) -> int:
        """Return the number of examples seen before a step, counted from 0."""
        epochs, number = divmod(step, self.per_epoch)
        return epochs * len(self._examples) + number * self._size

    def members(self, step: int) -> np.ndarray:
        """Return the indices of the examples in the batch of a step, counted from 0."""
        epoch, number = divmod(step, self.per_epoch)
        return self._order(epoch)[number * self._size : (number + 1) * self._size]

    @functools.lru_cache(maxsize=1)  # noqa: B019 (lives as long as the run)
    def _order(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self._seed, epoch)).permutation(len(self._examples))

    def at(self, step: int) -> tuple[ExampleBatch, int]:
        """Return the batch of a step, counted from 0, and its number of examples."""
        chosen = self.members(step)
        lengths = [self._lengths[i] for i in chosen]
        examples = [self._examples[i] for i in chosen]
        rows = arrange(lengths, self.shape, self._task_loss.grouped)
        if len(rows) > self.shape.microbatches:
            raise AssertionError(f"{len(rows)} microbatches; there is room for {self.shape}")
        parts = [fill(examples, of_one, self.shape, self._task_loss) for of_one in rows]
        return stack(parts, self.shape, self._task_loss), len(examples)


def evaluation_batches(
    examples: Sequence[Example], shape: Shape, task_loss: TaskLoss
) -> Iterator[tuple[ExampleBatch, list[Row]]]:
    """Yield microbatches of all examples, each with its rows of pairs (example, sequence)."""
    for rows in arrange(lengths_of(examples), shape, task_loss.grouped):
        yield fill(examples, rows, shape, task_loss), rows


def place(batch: ExampleBatch, mesh: Mesh) -> ExampleBatch:
    """Shard a batch over the devices of all processes; each process holds the whole batch."""
    rows = packing.place_rows(batch.rows, mesh)
    targets, weights, documents = (
        packing.place(x, mesh, None, "rows")
        for x in (batch.targets, batch.weights, batch.documents)
    )
    return ExampleBatch(rows, targets, weights, documents, packing.place(batch.used, mesh))


def lengths_of(examples: Sequence[Example]) -> list[list[int]]:
    """Lengths of the sequences of each example, in tokens."""
    return packing.lengths_of(example.sequences for example in examples)

"""Which examples the batch of a step holds: a function of (seed, step), for any number of sets."""

import bisect
import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

Rule = Literal["proportional", "round-robin"]


class Members(NamedTuple):
    """The examples of a batch."""

    dataset: int
    """Number of the data set that all of them are from."""
    examples: np.ndarray
    """Their indices in it, int64 [n]."""


class Sampler:
    """The batches of a run: each epoch is a permutation of every data set, cut into batches.

    A batch holds examples of one data set, and no text twice: an example that shares a text with a
    batch goes into a later one. So the last batches of an epoch may be short.
    """

    def __init__(
        self,
        texts: Sequence[np.ndarray],
        size: int,
        seed: int,
        *,
        rule: Rule = "proportional",
        unique: bool | Sequence[bool] = True,
        least: int | Sequence[int] = 1,
    ):
        """Prepare; nothing is drawn yet.

        Args:
            texts: numbers of the texts of every example, by data set: int [n, C], equal for equal
                texts and below 0 for none.
            size: number of examples in a batch.
            seed: of the order.
            rule: order of the data sets; see `RetrievalConfig.sampling`.
            unique: whether a batch holds no text twice; for all data sets, or for each.
            least: fewest examples of a batch; an epoch leaves out the batches that have fewer. For
                all data sets, or for each.
        """
        self._counts = [len(of_one) for of_one in texts]
        self._size, self._seed, self._rule = size, seed, rule
        self._least = [least] * len(texts) if isinstance(least, int) else [*least]
        alone = [unique] * len(texts) if isinstance(unique, bool) else unique
        self._repeated = [
            repeated(of_one) if own else () for of_one, own in zip(texts, alone, strict=True)
        ]
        self._ends = [0]
        self._known: tuple[int, _Epoch] | None = None

    def steps(self, epochs: float) -> int:
        """Return the number of steps in a number of epochs, rounded up."""
        whole = int(epochs)
        part = epochs - whole
        more = math.ceil(part * self.batches(whole)) if part else 0
        return self._end(whole) + more

    def batches(self, epoch: int) -> int:
        """Return the number of batches in an epoch, counted from 0."""
        return self._end(epoch + 1) - self._end(epoch)

    def left_out(self, epoch: int) -> int:
        """Return the number of examples in an epoch whose texts repeat too often for a batch."""
        return self._epoch(epoch).left_out

    def epochs(self, step: int) -> float:
        """Return the number of epochs before a step, counted from 0."""
        epoch = self._epoch_of(step)
        return epoch + (step - self._end(epoch)) / max(1, self.batches(epoch))

    def members(self, step: int) -> Members:
        """Return the examples in the batch of a step, counted from 0."""
        number = self._epoch_of(step)
        epoch = self._epoch(number)
        dataset, batch = epoch.slots[step - self._end(number)]
        return Members(int(dataset), epoch.batches[dataset][batch])

    def _end(self, epochs: int) -> int:
        """Steps in the first epochs."""
        while len(self._ends) <= epochs:
            self._ends.append(self._ends[-1] + self._length(len(self._ends) - 1))
        return self._ends[epochs]

    def _length(self, epoch: int) -> int:
        if any(self._repeated):
            return len(self._epoch(epoch).slots)
        rests = (count % self._size for count in self._counts)
        short = [0 < rest < least for rest, least in zip(rests, self._least, strict=True)]
        lengths = [
            -(-count // self._size) - less for count, less in zip(self._counts, short, strict=True)
        ]
        return len(lengths) * min(lengths) if self._rule == "round-robin" else sum(lengths)

    def _epoch_of(self, step: int) -> int:
        while self._ends[-1] <= step:
            before = self._ends[-1]
            if self._end(len(self._ends)) == before:
                raise ValueError("an epoch has no batches")
        return bisect.bisect_right(self._ends, step) - 1

    def _epoch(self, number: int) -> "_Epoch":
        if self._known is None or self._known[0] != number:
            self._known = number, self._drawn(number)
        return self._known[1]

    def _drawn(self, number: int) -> "_Epoch":
        batches, left_out = [], 0
        for dataset, count in enumerate(self._counts):
            order = np.random.default_rng((self._seed, number, dataset)).permutation(count)
            divided = divide(order, self._repeated[dataset], self._size)
            least = self._least[dataset]
            batches.append([batch for batch in divided if len(batch) >= least])
            left_out += count - sum(map(len, batches[-1]))
        lengths = [len(of_one) for of_one in batches]
        if self._rule == "round-robin":
            turns = range(min(lengths))
            slots = [(dataset, i) for i in turns for dataset in range(len(batches))]
        else:
            sets = np.repeat(np.arange(len(batches)), lengths)
            sets = np.random.default_rng((self._seed, number, len(batches))).permutation(sets)
            taken = [itertools.count() for _ in batches]
            slots = [(dataset, next(taken[dataset])) for dataset in sets.tolist()]
        return _Epoch(slots, batches, left_out)


class _Epoch(NamedTuple):
    slots: list[tuple[int, int]]
    """Data set of each step, and the number of its batch in it."""
    batches: list[list[np.ndarray]]
    """Examples of the batches of each data set."""
    left_out: int


def repeated(texts: np.ndarray) -> list[list[int]]:
    """Texts of each example that other examples have too; an empty list if no text is repeated.

    Args:
        texts: numbers of texts, int [n, C]; those below 0 are none.
    """
    numbers = texts[texts >= 0]
    counts = np.bincount(numbers) if numbers.size else np.zeros(1, int)
    own = [sorted({t for t in row if t >= 0 and counts[t] > 1}) for row in texts.tolist()]
    return own if any(own) else []


def divide(order: np.ndarray, texts: Sequence[Sequence[int]], size: int) -> list[np.ndarray]:
    """Divide examples into batches in which no text occurs twice.

    Every example goes into the first batch with room that comes after all batches with one of its
    texts.

    Args:
        order: indices of the examples, int [n].
        texts: texts of each example that may occur in others; empty if there are none.
        size: number of examples in a batch.
    """
    if not texts:
        return [order[start : start + size] for start in range(0, len(order), size)]
    batches: list[list[int]] = [[]]
    following = [0]  # of a full batch a later one, of another the batch itself
    earliest: dict[int, int] = {}

    def with_room(batch: int) -> int:
        path = []
        while batch < len(following) and following[batch] != batch:
            path.append(batch)
            batch = following[batch]
        for full in path:
            following[full] = batch
        return batch

    for example in order.tolist():
        own = texts[example]
        batch = with_room(max((earliest.get(text, 0) for text in own), default=0))
        if batch == len(batches):
            batches.append([])
            following.append(batch)
        batches[batch].append(example)
        if len(batches[batch]) == size:
            following[batch] = batch + 1
        for text in own:
            earliest[text] = batch + 1
    return [np.array(batch, order.dtype) for batch in batches if batch]

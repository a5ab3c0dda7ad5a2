"""Batches through a device: several in flight, results in order."""

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

import jax
import numpy as np

AHEAD = 4
"""Number of batches that are computed before the first one's results are fetched."""

Batch = TypeVar("Batch")
Note = TypeVar("Note")
Result = TypeVar("Result")
Key = TypeVar("Key")
Level = Literal["document", "token"]


def results(
    compute: Callable[[Batch], Result],
    batches: Iterable[tuple[Batch, Note]],
    ahead: int = AHEAD,
) -> Iterator[tuple[Result, Note]]:
    """Results of batches as numpy arrays, in order.

    The next batches are read, laid out and started while earlier ones are computed.

    Args:
        compute: starts a computation, and returns a tree of jax arrays.
        batches: each with a note that is returned beside its result.
        ahead: batches that are started before the first one's results are fetched.
    """
    waiting: collections.deque[tuple[Result, Note]] = collections.deque()
    for batch, note in batches:
        waiting.append((compute(batch), note))
        if len(waiting) > ahead:
            yield _fetched(*waiting.popleft())
    while waiting:
        yield _fetched(*waiting.popleft())


def _fetched(result: Result, note: Note) -> tuple[Result, Note]:
    return jax.tree.map(np.asarray, result), note


def unpacked(
    values: np.ndarray, rows: Sequence[Sequence[Key]], length: Callable[[Key], int], level: Level
) -> Iterator[tuple[Key, np.ndarray]]:
    """The values of each document of a batch.

    Args:
        values: [B, S, K] by document, or [B, T, K] by token.
        rows: keys of the documents in each row, in order; rows without documents may be missing.
        length: number of tokens of a document, by its key.
        level: which of the two `values` are.

    Returns:
        Keys with values [K], or [tokens, K].
    """
    for of_row, row in zip(values, rows, strict=False):
        start = 0
        for place, key in enumerate(row):
            end = start + length(key)
            yield key, of_row[place] if level == "document" else of_row[start:end]
            start = end

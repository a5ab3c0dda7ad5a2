"""What a model says of examples of any number and length, in packed rows of one shape."""

import collections
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from ..tasks import Example, Outputs
from .batches import ExampleBatch
from .shapes import Row

_AHEAD = 4
"""Batches that are computed before the first one's logits are fetched."""


class Said(NamedTuple):
    """Logits of every sequence of every example, and the loss of those that have a target."""

    outputs: Outputs
    loss: float | None


def outputs(
    forward: Callable[[ExampleBatch], tuple[jax.Array, tuple[jax.Array, ...]]],
    batches: Iterable[tuple[ExampleBatch, list[Row]]],
    examples: Sequence[Example],
    level: str,
) -> Said:
    """Runs all batches, and unpacks what comes out.

    Args:
        forward: from a microbatch to its logits [B, S, K] or [B, T, K] and its loss.
        batches: each with the (example, sequence) of its documents; see `evaluation_batches`.
        examples: those that the batches were made of.
        level: "document" or "token".
    """
    found: list[list[Any]] = [[None] * len(example.sequences) for example in examples]
    total = np.zeros(2)
    waiting: collections.deque[tuple[Any, list[Row]]] = collections.deque()

    def fetch() -> None:
        (logits, sums), rows = waiting.popleft()
        values = np.asarray(logits)
        for of_row, row in zip(values, rows, strict=False):
            start = 0
            for s, (i, j) in enumerate(row):
                end = start + len(examples[i].sequences[j])
                found[i][j] = of_row[s] if level == "document" else of_row[start:end]
                start = end
        np.add(total, [float(x) for x in sums], out=total)

    for batch, rows in batches:
        waiting.append((forward(batch), rows))
        if len(waiting) > _AHEAD:
            fetch()
    while waiting:
        fetch()
    return Said(found, float(total[0] / total[1]) if total[1] else None)

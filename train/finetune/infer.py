"""Predictions of a model for labelled examples, through the library's batches in flight."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from modernbert_jax.inference import in_flight
from modernbert_jax.inference.shapes import Row

from ..engine.objective import Sums
from ..tasks import Example, Outputs
from .batches import ExampleBatch


class Predictions(NamedTuple):
    """Predictions for examples, with the loss of those that have a target."""

    outputs: Outputs
    """Logits of every sequence of every example: [K], or [tokens, K]."""
    loss: float | None
    """Mean loss; None where no example has a target."""


def outputs(
    forward: Callable[[ExampleBatch], tuple[jax.Array, Sums]],
    batches: Iterable[tuple[ExampleBatch, list[Row]]],
    examples: Sequence[Example],
    level: in_flight.Level,
) -> Predictions:
    """Predictions from all batches, several of which are in flight.

    Args:
        forward: from a microbatch to its logits [B, S, K] or [B, T, K] and its loss.
        batches: each with the (example, sequence) of its documents; see `evaluation_batches`.
        examples: those of the batches.
        level: "document" or "token".
    """
    logits_of: list[list[Any]] = [[None] * len(example.sequences) for example in examples]
    loss = count = 0.0

    def length(at: tuple[int, int]) -> int:
        return len(examples[at[0]].sequences[at[1]])

    for (logits, sums), rows in in_flight.results(forward, batches):
        for (i, j), values in in_flight.unpacked(np.asarray(logits), rows, length, level):
            logits_of[i][j] = values
        loss, count = loss + float(sums.loss), count + float(sums.count)
    return Predictions(logits_of, loss / count if count else None)

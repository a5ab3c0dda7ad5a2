"""Growing batches: how many rows each step takes, as a function of the step alone.

ModernBERT starts its first stage with small batches. Sizes are the multiples 1, 2, ... of a unit
(a microbatch of all devices together), and every size gets the same number of steps, so that the
tokens at which it ends grow with the sum of the sizes up to it. Nothing here knows of devices, and
nothing is counted while training: a stage's steps are a table, and time in rows follows from it.
"""

import bisect
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp


def thresholds(first: int, last: int, tokens: int) -> list[int]:
    """Compute the tokens seen at which batches of `first`, `first` + 1, ..., `last` - 1 units end.

    The research code's formula, with all counts global: the warm-up's `tokens` are divided in
    proportion to the sizes, ceil(tokens * sum(first..size) / sum(first..last - 1)).
    """
    whole = sum(range(first, last))
    return [-(-tokens * sum(range(first, size + 1)) // whole) for size in range(first, last)]


class BatchPhase(NamedTuple):
    """Steps of one batch size."""

    step: int
    """First step, counted from 0 at the start of the stage."""
    row: int
    """Rows of the stage before that step."""
    rows: int
    """Rows in each batch."""


class BatchSizeSchedule:
    """The batch sizes of a stage, and its time in rows."""

    def __init__(self, tokens: int, length: int, rows: int, unit: int = 0, warmup_tokens: int = 0):
        """Divide a stage of `tokens` in rows of `length` into batches of `rows`.

        In the warm-up batches grow by `unit` rows. A batch is as large as the tokens before it
        ask for; the last one ends the stage within half a batch of its tokens.
        """
        self.phases: list[BatchPhase] = []
        step = row = 0
        last = rows // unit if unit else 1
        for size, end in enumerate(thresholds(1, last, min(warmup_tokens, tokens)), start=1):
            count = max(0, -(-(end - row * length) // (size * unit * length)))
            if count:
                self.phases.append(BatchPhase(step, row, size * unit))
            step, row = step + count, row + count * size * unit
        left = round((tokens - row * length) / (rows * length))
        if left > 0 or not self.phases:
            self.phases.append(BatchPhase(step, row, rows))
            step, row = step + max(left, 1), row + max(left, 1) * rows
        self.steps, self.rows = step, row

    def at(self, step: int) -> BatchPhase:
        """The phase of a step of the stage."""
        starts = [phase.step for phase in self.phases]
        return self.phases[max(bisect.bisect_right(starts, step) - 1, 0)]

    def end(self, phase: BatchPhase) -> int:
        """The step after the last one of a phase."""
        following = [s.step for s in self.phases if s.step > phase.step]
        return following[0] if following else self.steps

    def rows_before(self, step: int) -> int:
        """Rows that the steps before this one take, exactly."""
        phase = self.at(step)
        return phase.row + (step - phase.step) * phase.rows

    def time(self, step: jax.Array) -> jax.Array:
        """`rows_before` in float32, for traced steps."""
        step0, row0, rows = (jnp.asarray(x, jnp.float32) for x in zip(*self.phases, strict=True))
        i = jnp.searchsorted(step0, jnp.asarray(step, jnp.float32), side="right") - 1
        i = jnp.maximum(i, 0)
        return row0[i] + (step - step0[i]) * rows[i]


def microbatches(rows: int, at_most: int) -> int:
    """Number of equal microbatches, of `at_most` rows or fewer, in a batch; 0 makes one."""
    least = math.ceil(rows / at_most) if at_most else 1
    return next(n for n in range(least, rows + 1) if rows % n == 0)

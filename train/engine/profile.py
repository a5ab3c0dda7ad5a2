"""Traces of a few steps with jax's profiler, for xprof or TensorBoard."""

import contextlib
from pathlib import Path
from typing import Any

import jax

from modernbert_jax.errors import UserError


class Profiler:
    """A context manager that traces a range of steps into a folder."""

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        """Set up tracing.

        Args:
            folder: the folder of the trace.
            steps: first and last step to trace, counted from 1; None traces nothing.
        """
        self._folder, self._steps = folder, steps
        self._running = False

    @staticmethod
    def parse(steps: str) -> tuple[int, int]:
        """Return the first and last step of "A:B".

        Raises:
            UserError: another form, or numbers that are no range.
        """
        first, colon, last = steps.partition(":")
        if not (colon and first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
            raise UserError(f"profile-steps is {steps!r}; it must be A:B with 1 <= A <= B")
        return int(first), int(last)

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def step(self, number: int) -> contextlib.AbstractContextManager:
        """Return the context in which to call step `number`, counted from 1."""
        if self._steps is None:
            return contextlib.nullcontext()
        if self._steps[0] <= number <= self._steps[1] and not self._running:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def after(self, number: int, result: Any) -> None:
        """End the trace after its last step; to be called after every step with its result."""
        if self._running and self._steps and number >= self._steps[1]:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False

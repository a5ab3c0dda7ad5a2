"""Tracing a few steps with jax's profiler, for xprof or TensorBoard."""

import contextlib
from pathlib import Path
from typing import Any

import jax

from modernbert_jax.errors import UserError


class Profiler:
    """Traces steps `first` to `last`, both included, into a folder. A context manager."""

    def __init__(self, folder: Path, steps: tuple[int, int] | None):
        """Without `steps` it does nothing."""
        self._folder, self._steps = folder, steps
        self._running = False

    @staticmethod
    def parse(steps: str) -> tuple[int, int]:
        """First and last step from "A:B". Raises `UserError`."""
        first, colon, last = steps.partition(":")
        if not (colon and first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
            raise UserError(f"profile-steps is {steps!r}; it must be A:B with 1 <= A <= B")
        return int(first), int(last)

    def __enter__(self) -> "Profiler":
        return self

    def __exit__(self, *_) -> None:
        self._stop()

    def step(self, number: int) -> contextlib.AbstractContextManager:
        """Around the call of step `number`, counted from 1."""
        if self._steps is None:
            return contextlib.nullcontext()
        if self._steps[0] <= number <= self._steps[1] and not self._running:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def after(self, number: int, result: Any) -> None:
        """Behind the call; ends the trace once the last step has ended."""
        if self._running and number >= self._steps[1]:
            jax.block_until_ready(result)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False

"""Speed of fine-tuning, counted as updates end."""

import contextlib
import time
from collections.abc import Iterator
from typing import NamedTuple

from ..engine.hardware import peak_memory
from .step import StepMetrics


class Pending(NamedTuple):
    """An update that may still be running, and what the host knows of it."""

    step: int
    metrics: StepMetrics
    examples: int
    tokens: int
    capacity: int


class Meter:
    """Counts examples and tokens of updates that have ended, and the time that they took."""

    def __init__(self, tokens: int = 0, seconds: float = 0.0):
        """For a run that has seen `tokens` and has taken `seconds` for its updates."""
        self.tokens, self.seconds = tokens, seconds
        self._since = time.perf_counter()
        self._reset()

    def _reset(self) -> None:
        self._examples = self._tokens = self._capacity = 0
        self._began = self.seconds

    def _advance(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now

    def state(self) -> dict[str, float]:
        """What a resumed run goes on from."""
        return {"tokens": self.tokens, "seconds": round(self.seconds, 3)}

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Leaves the block's time out."""
        self._advance()
        yield
        self._since = time.perf_counter()

    def count(self, pending: Pending) -> None:
        """Notes an update that has ended."""
        self.tokens += pending.tokens
        self._examples += pending.examples
        self._tokens += pending.tokens
        self._capacity += pending.capacity

    def read(self) -> dict[str, float]:
        """Speed since the last reading."""
        self._advance()
        spent = max(self.seconds - self._began, 1e-9)
        found = {
            "examples_per_second": self._examples / spent,
            "tokens_per_second": self._tokens / spent,
            "packing_efficiency": self._tokens / max(self._capacity, 1),
            "device_memory_bytes": peak_memory(),
        }
        self._reset()
        return found

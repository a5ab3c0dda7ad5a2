"""What a run reports: rows of JSON lines, TensorBoard events, and how busy the chip was."""

import collections
import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.io.files import write_bytes
from modernbert_jax.packing import Rows

from ..rows.batches import Batches, RowBatch
from . import sinks
from .hardware import peak_flops, peak_memory


class MetricWriter:
    """Appends rows to `metrics.jsonl` and `tensorboard/` of a run's folder, and to more sinks.

    Of several processes only the first writes; all of them know the rows.
    """

    def __init__(self, folder: str | Path, resume_at: int, more: Sequence[sinks.Sink] = ()):
        """Drops rows behind step `resume_at`: a run that was killed makes them again."""
        path = Path(folder) / "metrics.jsonl"
        self.rows = [row for row in read_rows(path) if row["step"] <= resume_at]
        self._sinks: list[sinks.Sink] = []
        if jax.process_index() == 0:
            write_bytes(path, b"".join(sinks.line(row) for row in self.rows))
            board = sinks.Events(Path(folder) / "tensorboard", resume_at)
            self._sinks = [sinks.Lines(path), board, *more]

    def write(self, row: dict[str, Any]) -> None:
        """One row; `step` is its place, and every other number a curve in TensorBoard.

        A number that is not finite becomes null, because JSON has no other word for it.
        """
        row = {
            k: None if isinstance(x, float) and not math.isfinite(x) else x for k, x in row.items()
        }
        self.rows.append(row)
        for sink in self._sinks:
            sink.write(row)

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_) -> None:
        for sink in self._sinks:
            sink.close()


class Counts(NamedTuple):
    """What some batches held, and how long the step waited for them."""

    tokens: int = 0
    capacity: int = 0
    pairs: float = 0.0
    """Of a token and another of its document."""
    waited: float = 0.0
    components: Any = 0
    """Tokens of each component of the data in this process's rows, int array."""


class Chronometer:
    """Seconds of a run by phase; whatever is not another phase is spent in steps."""

    def __init__(self):
        self._seconds: dict[str, float] = {}
        self._phase, self._since = "step", time.perf_counter()

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Counts the block's time for a phase."""
        before = self._enter(phase)
        try:
            yield
        finally:
            self._enter(before)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Counts what the run had taken before it was resumed."""
        for phase, more in seconds.items():
            self._seconds[phase] = self._seconds.get(phase, 0.0) + more

    def read(self) -> dict[str, float]:
        """Seconds by phase up to now."""
        self._enter(self._phase)
        return {phase: round(seconds, 3) for phase, seconds in self._seconds.items()}

    def _enter(self, phase: str) -> str:
        now, before = time.perf_counter(), self._phase
        self.add({before: now - self._since})
        self._phase, self._since = phase, now
        return before


class Meter:
    """Speed of training, and what it has seen: all counted as steps end."""

    def __init__(
        self, model: ModernBertConfig, mask_rate: float, tokens: int, chronometer: Chronometer
    ):
        """For a model that predicts a share of its tokens, in a run that has seen `tokens`."""
        self._model, self._mask_rate = model, mask_rate
        self._chronometer = chronometer
        self.tokens = tokens
        self._counts = Counts()
        self._begun: collections.deque[Counts] = collections.deque()
        self.restart()

    def restart(self) -> None:
        """Leaves out the time since the last reading: it went into something else."""
        self._since = self._finished = time.perf_counter()
        self._step_seconds: list[float] = []

    def finished(self, metrics: Any | None) -> None:
        """Times a step by its metrics' arrival. Called when the next one is already running."""
        if metrics is None:
            return
        jax.block_until_ready(metrics)
        now = time.perf_counter()
        seen = self._begun.popleft()._replace(
            tokens=int(metrics.tokens), pairs=float(metrics.pairs)
        )
        self.tokens += seen.tokens
        self._counts = Counts(*(a + b for a, b in zip(self._counts, seen, strict=True)))
        self._step_seconds.append(now - self._finished)
        self._finished = now

    def next(self, batches: Batches) -> Rows:
        """The rows of the next batch."""
        began = time.perf_counter()
        with self._chronometer.during("data"):
            batch: RowBatch = next(batches)
        waited = time.perf_counter() - began
        components = np.bincount(batch.components, batch.tokens, len(batches.order.names))
        capacity = batch.rows.token_ids.size
        self._begun.append(Counts(capacity=capacity, waited=waited, components=components))
        return batch.rows

    def take(self) -> Counts:
        """The counts of the steps that have ended since the last call."""
        counts, self._counts = self._counts, Counts()
        return counts

    def read(self, counts: Counts) -> dict[str, float | None]:
        """Numbers for `metrics.jsonl`, now that the steps behind `counts` have ended.

        Padding counts for nothing, and what is computed twice to save memory counts once.
        """
        speed = counts.tokens / (time.perf_counter() - self._since)
        middle, late, last = np.percentile(self._step_seconds or [0.0], [50, 90, 100]).tolist()
        self.restart()
        length = counts.pairs / max(counts.tokens, 1)
        peak = peak_flops()
        flops = 3 * self._model.flops_per_token(length, self._mask_rate)
        return {
            "tokens_per_second": speed,
            "mfu": peak and speed * flops / peak,
            "packing_efficiency": counts.tokens / max(counts.capacity, 1),
            "data_wait_seconds": counts.waited,
            "step_seconds_p50": middle,
            "step_seconds_p90": late,
            "step_seconds_max": last,
            "device_memory_bytes": peak_memory(),
            **{f"seconds_{name}": s for name, s in self._chronometer.read().items()},
        }


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that was cut off is left out."""
    if not Path(path).exists():
        return []
    rows = []
    for line in Path(path).read_bytes().splitlines(keepends=True):
        if not line.endswith(b"\n"):
            break
        rows.append(json.loads(line))
    return rows

"""Rows of metrics, and how fast a run is: counted as steps end, so that nothing waits for it."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import write_bytes
from modernbert_jax.io.json_reader import parse_object

from . import sinks
from .hardware import peak_flops, peak_memory
from .objective import Objective, added_counts


class MetricWriter:
    """A writer of rows to `metrics.jsonl` and `tensorboard/` of a run's folder, and other sinks.

    Of several processes only the first writes; all of them know the rows.
    """

    def __init__(
        self,
        folder: str | Path,
        resume_at: int,
        more: Sequence[sinks.Sink] = (),
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ):
        """Drop rows after step `resume_at`: a run that was killed makes them again.

        A file with damaged lines is kept as `metrics.jsonl.damaged`, and the run goes on without
        them.

        Args:
            folder: of the run.
            resume_at: step of the last row to keep.
            more: other sinks.
            say: receives a line about damage, in process 0.
        """
        path = Path(folder) / "metrics.jsonl"
        rows, damaged = _parsed(path)
        self.rows = [row for row in rows if row["step"] <= resume_at]
        self._sinks: list[sinks.Sink] = []
        if jax.process_index() == 0:
            if damaged:
                kept = path.with_name(f"{path.name}.damaged")
                write_bytes(kept, path.read_bytes())
                say(f"{path}: damaged lines left out ({damaged}); all of it is in {kept.name}")
            write_bytes(path, b"".join(sinks.line(row) for row in self.rows))
            board = sinks.Events(Path(folder) / "tensorboard", resume_at)
            self._sinks = [sinks.Lines(path), board, *more]

    def write(self, row: dict[str, Any]) -> None:
        """Write one row; `step` is its place, and every other number a curve in TensorBoard.

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


class Chronometer:
    """Seconds of a run by phase; time in no other phase is spent in steps."""

    def __init__(self):
        self._seconds: dict[str, float] = {}
        self._phase, self._since = "step", time.perf_counter()

    @contextlib.contextmanager
    def during(self, phase: str) -> Iterator[None]:
        """Count the block's time for a phase."""
        before = self._enter(phase)
        try:
            yield
        finally:
            self._enter(before)

    def add(self, seconds: Mapping[str, float]) -> None:
        """Count what the run had taken before it was resumed."""
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
    """Speed of training, and the tokens that it has seen: counted as steps end.

    Counts and seconds are those of the same steps, whatever happens between them.
    """

    def __init__(self, tokens: int, chronometer: Chronometer):
        """Start for a run that has seen `tokens`."""
        self.tokens = tokens
        self.chronometer = chronometer
        self._counts: dict[str, Any] = {}
        self._step_seconds: list[float] = []
        self.restart()

    def restart(self) -> None:
        """Leave out the time since the last step: it was spent on something else."""
        self._finished = time.perf_counter()

    def finished(self, counts: Mapping[str, Any]) -> None:
        """Count a step that has just ended; `tokens` and `pairs` are among its counts."""
        now = time.perf_counter()
        self.tokens += int(counts["tokens"])
        self._counts = added_counts(self._counts, counts)
        self._step_seconds.append(now - self._finished)
        self._finished = now

    def take(self) -> dict[str, Any]:
        """Return the counts of the steps that have ended since the last call."""
        counts, self._counts = self._counts, {}
        return counts

    def read(self, objective: Objective, counts: Mapping[str, Any]) -> dict[str, float | None]:
        """Measure the speed of the steps since the last reading, for `metrics.jsonl`.

        Padding counts for nothing, and what is computed twice to save memory counts once.
        """
        times, self._step_seconds = self._step_seconds, []
        seconds = sum(times)
        middle, late, last = np.percentile(times, [50, 90, 100]).tolist()
        tokens = int(counts["tokens"])
        speed, peak = tokens / seconds, peak_flops()
        forward = objective.flops_per_token(float(counts["pairs"]) / max(tokens, 1))
        row = {
            "tokens_per_second": speed,
            "mfu": speed * 3 * forward / peak if forward and peak else None,
            "data_wait_seconds": float(counts["waited"]),
            "step_seconds_p50": middle,
            "step_seconds_p90": late,
            "step_seconds_max": last,
            "device_memory_bytes": peak_memory(),
            **{f"seconds_{name}": s for name, s in self.chronometer.read().items()},
        }
        if "examples" in counts:
            row["examples_per_second"] = int(counts["examples"]) / seconds
        if "capacity" in counts:
            row["packing_efficiency"] = tokens / max(int(counts["capacity"]), 1)
        return row


def read_rows(path: str | Path) -> list[dict[str, Any]]:
    """Read the rows of a `metrics.jsonl`; damaged lines are left out."""
    return _parsed(Path(path))[0]


def _parsed(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of a `metrics.jsonl`, and the numbers of damaged lines.

    An incomplete last line is left out, and is no damage: a kill leaves it.
    """
    rows, damaged = [], []
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    for number, content in enumerate(lines[:-1], start=1):
        try:
            row = parse_object(content)
            if type(row.get("step")) is not int or type(row.get("stage", "")) is not str:
                raise UserError("no row of metrics")
            rows.append(row)
        except UserError:
            damaged.append(str(number))
    more = f" and {len(damaged) - 5:,} more" if len(damaged) > 5 else ""
    return rows, ", ".join(damaged[:5]) + more

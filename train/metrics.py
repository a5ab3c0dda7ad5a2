"""What a run reports: rows of JSON lines, TensorBoard events, and how busy the chip was."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import tensorboardX

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.files import write_bytes
from modernbert_jax.packing import Rows

from .data import Batch, Batches

PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "NVIDIA A100": 312e12,
    "NVIDIA L4": 121e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
    "NVIDIA B200": 2250e12,
}
"""Dense bfloat16 operations per second, from the makers' data sheets, by start of device kind."""


class MetricWriter:
    """Appends rows to `metrics.jsonl` and `tensorboard/` of a run's folder."""

    def __init__(self, folder: str | Path, resume_at: int):
        """Drops rows behind step `resume_at`: a run that was killed makes them again."""
        self._path = Path(folder) / "metrics.jsonl"
        self.rows = [row for row in read_rows(self._path) if row["step"] <= resume_at]
        write_bytes(self._path, b"".join(_line(row) for row in self.rows))
        self._file = self._path.open("ab")
        self._board = tensorboardX.SummaryWriter(
            str(Path(folder) / "tensorboard"), purge_step=resume_at + 1 if resume_at else None
        )

    def write(self, row: dict[str, Any]) -> None:
        """One row; `step` is its place, and every other number a curve in TensorBoard."""
        self.rows.append(row)
        self._file.write(_line(row))
        self._file.flush()
        for name, value in row.items():
            if name != "step" and isinstance(value, int | float):
                self._board.add_scalar(name, value, row["step"])

    def __enter__(self) -> "MetricWriter":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()
        self._board.close()


class Counts(NamedTuple):
    """What some batches held, and how long the step waited for them."""

    tokens: int = 0
    capacity: int = 0
    pairs: int = 0
    """Of a token and another of its document."""
    waited: float = 0.0
    components: Any = 0
    """Tokens of each component of the data, int array."""


class Meter:
    """Speed of training. Counts are taken as steps are begun, and timed as they end."""

    def __init__(self, model: ModernBertConfig, mask_rate: float, tokens: int):
        """For a model that predicts a share of its tokens, in a run that has seen `tokens`."""
        self._model, self._mask_rate = model, mask_rate
        self.tokens = tokens
        self._counts = Counts()
        self.restart()

    def restart(self) -> None:
        """Leaves out the time since the last reading: it went into something else."""
        self._since = time.perf_counter()

    def next(self, batches: Batches) -> Rows:
        """The rows of the next batch, counted."""
        began = time.perf_counter()
        batch: Batch = next(batches)
        waited = time.perf_counter() - began
        components = np.bincount(batch.components, batch.tokens, len(batches.order.names))
        tokens, capacity = int(batch.tokens.sum()), batch.rows.token_ids.size
        new = Counts(tokens, capacity, batch.pairs, waited, components)
        self.tokens += new.tokens
        self._counts = Counts(*(a + b for a, b in zip(self._counts, new, strict=True)))
        return batch.rows

    def take(self) -> Counts:
        """The counts since the last call."""
        counts, self._counts = self._counts, Counts()
        return counts

    def read(self, counts: Counts) -> dict[str, float | None]:
        """Numbers for `metrics.jsonl`, now that the steps behind `counts` have ended.

        Padding counts for nothing, and what is computed twice to save memory counts once.
        """
        speed = counts.tokens / (time.perf_counter() - self._since)
        self.restart()
        length = counts.pairs / max(counts.tokens, 1)
        peak = peak_flops()
        flops = 3 * self._model.flops_per_token(length, self._mask_rate)
        return {
            "tokens_per_second": speed,
            "mfu": peak and speed * flops / peak,
            "packing_efficiency": counts.tokens / max(counts.capacity, 1),
            "data_wait_seconds": counts.waited,
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


def peak_flops() -> float | None:
    """Bfloat16 operations per second of all devices; None where the kind is not known."""
    kind = jax.devices()[0].device_kind
    known = [name for name in PEAK_FLOPS if kind.startswith(name)]
    return PEAK_FLOPS[max(known, key=len)] * jax.device_count() if known else None


def _line(row: dict[str, Any]) -> bytes:
    return (json.dumps(row) + "\n").encode()

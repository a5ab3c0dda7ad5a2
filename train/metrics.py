"""What a run reports: rows of JSON lines, TensorBoard events, and how busy the chip was."""

import json
from pathlib import Path
from typing import Any

import jax
import tensorboardX

from modernbert_jax.files import write_bytes

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

    def close(self) -> None:
        """Flushes both."""
        self._file.close()
        self._board.close()


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

"""Files of a run over examples, and what its inputs are."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from modernbert_jax import convert
from modernbert_jax.io import fingerprint
from modernbert_jax.io.files import write_json
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.tokenizer import FILES

from .. import engine
from ..engine.distributed import together

RESULT = "result.json"
"""File of the run's folder with metrics of the best, the last and the exported model."""


def inputs_of(
    checkpoint: convert.Checkpoint, data: Mapping[str, Sequence[str | Path]]
) -> dict[str, Any]:
    """What the examples, the base model and its tokenizer are, by name.

    Args:
        checkpoint: the base model.
        data: files by the name of the field of the configuration; names without files are left out.
    """
    files = {n: x for n, x in checkpoint.files.items() if n in FILES}
    return {
        **{name: fingerprint.of_paths(paths) for name, paths in data.items() if paths},
        "model": convert.identity(checkpoint),
        "tokenizer": fingerprint.of_contents(files),
    }


def read_result(folder: engine.RunFolder) -> dict[str, Any] | None:
    """Read the result of a finished run; None where it is not finished."""
    path = folder.path / RESULT
    return read_json(path) if path.exists() else None


def once(
    folder: engine.RunFolder, work: Callable[[], dict[str, Any] | None]
) -> dict[str, Any] | None:
    """Return the result of a run: the recorded one, or that of the work in the folder, held.

    Raises:
        UserError: the folder holds something else, or another process writes it.
    """
    folder.check()
    if (result := read_result(folder)) is not None:
        folder.say_finished()
        return result
    with folder.held():
        if (result := read_result(folder)) is not None:  # another process has finished it since
            return result
        return work()


def write_export(
    folder: engine.RunFolder,
    checkpoint: convert.Checkpoint,
    format: str,
    result: Mapping[str, Any],
) -> None:
    """Write the exported model and then the result, from process 0."""
    if jax.process_index() == 0:
        if not folder.export.exists():
            convert.save(checkpoint, folder.export, format)
        write_json(folder.path / RESULT, dict(result))
    together("exported")


def history(outcome: engine.Outcome) -> dict[str, Any]:
    """The evaluations after the best and after the last step."""
    rows = {row["step"]: row for row in outcome.rows if "eval_loss" in row}
    steps = {"best": outcome.best_step, "last": int(outcome.state.step)}
    return {
        name: {
            "step": step,
            "metrics": {
                key.removeprefix("eval_"): value
                for key, value in rows[step].items()
                if key.startswith("eval_")
            },
        }
        for name, step in steps.items()
        if step in rows
    }


def json_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Rows as JSON lines."""
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return "".join(lines).encode(errors="backslashreplace")


def finite(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Replace numbers that are not finite by None, JSON's null."""
    return {k: None if x is None or not math.isfinite(x) else float(x) for k, x in metrics.items()}

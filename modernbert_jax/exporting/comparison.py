"""Comparison of an exported program with the model in this library, before it is handed out."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import export

from modernbert_jax.config import Dtype, Runtime
from modernbert_jax.convert import Checkpoint
from modernbert_jax.inference import in_flight
from modernbert_jax.inference.runner import Document
from modernbert_jax.packing import rows_from
from modernbert_jax.splade import SparseVector, sparse

from . import programs
from .programs import Exportable, Shape

TOLERANCE: Mapping[Dtype, float] = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest difference, where the largest number is 1 or less; else relative to that."""


def difference(
    checkpoint: Checkpoint,
    made: Exportable,
    exported: export.Exported,
    weights: Mapping[str, np.ndarray],
    shape: Shape | None,
) -> float:
    """Largest difference for two random documents in a row.

    Raises:
        RuntimeError: it is above the tolerance.
    """
    rng, rows = np.random.default_rng(0), shape or Shape(2, programs.SHORTEST)
    lengths = (rows.length // 2, rows.length // 4)
    ids = [rng.integers(0, checkpoint.config.vocab_size, n).tolist() for n in lengths]
    hidden = "visible" in made.extra
    documents = [Document(i, len(i) // 2 if hidden else None) for i in ids]
    options: dict[str, Any] = {**made.options, **({"skip": 1} if "skip" in made.extra else {})}
    runtime = Runtime(dtype=made.runner.module.runtime.dtype)
    runner = programs.runner_of(checkpoint, runtime)
    ours = runner.run(made.name, programs.nested(weights), documents, **options)

    placed = [[0, 1], *([] for _ in range(rows.rows - 1))]
    batch = rows_from(ids, placed, rows.length)
    shown = np.zeros(rows, bool)
    for start, document in zip((0, lengths[0]), documents, strict=True):
        shown[0, start : start + (document.visible or 0)] = True
    more = {"visible": shown, "skip": np.int32(1)}
    extra = [more[name] for name in made.extra]
    values = np.asarray(jax.jit(exported.call)(dict(weights), *batch, *extra))
    theirs = [v for _, v in in_flight.unpacked(values, placed, lengths.__getitem__, made.level)]
    pairs = [_arrays(made, a, b) for a, b in zip(ours, theirs, strict=True)]
    most = max(float(np.abs(a - b).max()) for a, b in pairs)
    largest = max(1.0, *(float(np.abs(a).max()) for a, _ in pairs))
    if not most <= TOLERANCE[runtime.dtype] * largest:
        raise RuntimeError(f"the exported program differs from the model by {most:.1e}")
    return most


def _arrays(
    made: Exportable, ours: np.ndarray | SparseVector, theirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """A document's result by the model and by the program, in the same form."""
    if not isinstance(ours, SparseVector):
        return np.asarray(made.finished(ours)), theirs
    size = 1 + max(int(ours.indices.max(initial=0)), int(sparse(theirs).indices.max(initial=0)))
    dense = np.zeros((2, size), np.float32)
    for row, vector in zip(dense, (ours, sparse(theirs)), strict=True):
        row[vector.indices] = vector.values
    return dense[0], dense[1]

"""Compare two checkpoints: tensor by tensor, then what they compute on random packed rows."""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np

from modernbert_jax import packing
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.embedder import Embedder, embedder_params
from modernbert_jax.heads import HEADS
from modernbert_jax.pipeline import Pipeline, Step

from . import formats, locating, names
from .checkpoint import Checkpoint

LENGTH = 256
"""Tokens per random row, more than the usual window of 128 spans."""

_NO_MODULES = Pipeline(kind="embedding")

_Config = TypeVar("_Config", ModernBertConfig, Pipeline)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """Differences between checkpoints a and b; numbers are largest absolute differences."""

    tolerance: float
    config: dict[str, tuple[Any, Any]]
    """Fields of the architecture and of the modules that differ, with both values."""
    missing: dict[str, list[str]]
    """Tensors that only "a" or only "b" has; under "shape" those whose shapes differ."""
    tensors: int
    """Number of tensors compared."""
    worst: tuple[str, float]
    """Name of the tensor with the largest difference, and that difference."""
    hidden: float | None
    """Difference of hidden states on random packed rows; None if they cannot be computed."""
    logits: float | None
    """Difference of logits, or of the vectors of an embedding model; None if there are none."""

    @property
    def equal(self) -> bool:
        """Same config and names, and all differences within the tolerance; NaN is not."""
        differences = [self.worst[1], *(x for x in (self.hidden, self.logits) if x is not None)]
        within = all(x <= self.tolerance for x in differences)
        return within and not self.config and not any(self.missing.values())

    def __str__(self) -> str:
        """The result as lines of text, the verdict last."""
        lines = [f"config: {k} is {a!r} and {b!r}" for k, (a, b) in self.config.items()]
        for where, tensors in self.missing.items():
            label = "of two shapes" if where == "shape" else f"only in {where}"
            lines += [f"{label}: {', '.join(tensors)}"] if tensors else []
        lines.append(f"tensors: {self.tensors} compared, worst {self.worst[0]} {self.worst[1]:.3g}")
        for label, number in (("hidden states", self.hidden), ("logits", self.logits)):
            lines += [] if number is None else [f"{label}: {number:.3g}"]
        verdict = f"{'equal' if self.equal else 'NOT equal'} within {self.tolerance:g}"
        return "\n".join([*lines, verdict])


def verify(
    a: str | os.PathLike | Checkpoint,
    b: str | os.PathLike | Checkpoint,
    *,
    tolerance: float = 1e-5,
    rows: int = 2,
    seed: int = 0,
) -> Verification:
    """Compare two checkpoints, or those of any formats under two names that `locate` takes.

    Args:
        a: one checkpoint.
        b: the other.
        tolerance: largest absolute difference of a tensor, hidden state or logit.
        rows: number of random rows of `LENGTH` tokens, three documents each.
        seed: of the random rows.
    """
    a, b = (x if isinstance(x, Checkpoint) else formats.load(locating.locate(x)) for x in (a, b))
    left, right = (names.to_tensors(x.params, x.rows()) for x in (a, b))
    shared = [name for name in left if name in right]
    shaped = [name for name in shared if left[name].shape == right[name].shape]
    differences = {n: _difference(np.asarray(left[n]), np.asarray(right[n])) for n in shaped}
    config = _differing_fields(a.config, b.config)
    computable = len(shaped) == len(shared) and {"vocab_size", "hidden_size"}.isdisjoint(config)
    config |= {"head": (a.head, b.head)} if a.head != b.head else {}
    config |= _differing_fields(a.pipeline or _NO_MODULES, b.pipeline or _NO_MODULES)
    hidden = logits = None
    if computable:
        batch = random_rows(a.config, rows, seed)
        (hidden_a, logits_a), (hidden_b, logits_b) = _outputs(a, batch), _outputs(b, batch)
        hidden = _difference(hidden_a, hidden_b)
        if logits_a is not None and logits_b is not None and logits_a.shape == logits_b.shape:
            logits = _difference(logits_a, logits_b)
    return Verification(
        tolerance=tolerance,
        config=config,
        missing={
            "a": [n for n in left if n not in right],
            "b": [n for n in right if n not in left],
            "shape": [n for n in shared if n not in differences],
        },
        tensors=len(shaped),
        worst=max(differences.items(), key=_badness, default=("", 0.0)),
        hidden=hidden,
        logits=logits,
    )


def random_rows(config: ModernBertConfig, rows: int, seed: int) -> packing.Rows:
    """Random documents in packed rows: three per row, followed by some padding."""
    rng = np.random.default_rng(seed)
    lengths = [LENGTH // 2, LENGTH // 4, LENGTH // 8]
    documents = [rng.integers(0, config.vocab_size, n).tolist() for n in lengths * rows]
    return packing.rows_from(documents, np.arange(3 * rows).reshape(rows, 3).tolist(), LENGTH)


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute difference in float64; equal infinities and NaNs do not differ."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    return float(np.max(np.abs(a - b)))


def _badness(item: tuple[str, float]) -> float:
    return np.inf if np.isnan(item[1]) else item[1]


def _differing_fields(a: _Config, b: _Config) -> dict[str, tuple[Any, Any]]:
    left, right = ({f.name: getattr(x, f.name) for f in dataclasses.fields(x)} for x in (a, b))
    return {k: (left[k], right[k]) for k in left if left[k] != right[k]}


def _outputs(checkpoint: Checkpoint, batch: packing.Rows) -> tuple[np.ndarray, np.ndarray | None]:
    """Hidden states at the tokens of documents, and the outputs of the head or the modules."""
    params = jax.tree.map(lambda x: x.astype(np.float32), checkpoint.params)
    steps = checkpoint.pipeline.steps if checkpoint.pipeline else ()
    program = _program(checkpoint.config, checkpoint.head, checkpoint.labels, steps)
    hidden, outputs = program(params, batch)
    tokens = batch.segment_ids > 0
    hidden = np.asarray(hidden)[tokens]
    if outputs is None:
        return hidden, None
    outputs = np.asarray(outputs)
    # Outputs per token exist for padding too.
    return hidden, outputs[tokens] if outputs.shape[:2] == tokens.shape else outputs


@functools.lru_cache(maxsize=2)
def _program(
    config: ModernBertConfig, head: str, labels: int, steps: tuple[Step, ...]
) -> Callable[[names.Params, packing.Rows], tuple[Any, Any]]:
    """The compiled computation, shared by two checkpoints of one architecture."""

    def run(params: names.Params, rows: packing.Rows) -> tuple[Any, Any]:
        if head == "none":
            model: Any = Embedder(config, steps=steps).bind({"params": embedder_params(params)})
            hidden = model.encoder(*rows)
            return hidden, model.vectors(hidden, rows.segment_ids, 3) if steps else None
        model = HEADS[head].build(config, Runtime(), labels).bind({"params": params})
        hidden = model.hidden(*rows)
        return hidden, model.logits(hidden)

    return jax.jit(run)

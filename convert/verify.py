"""Whether two checkpoints are the same model: by tensors, then by what they compute."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from modernbert_jax import packing
from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.heads import HEADS
from modernbert_jax.pipeline import Embedder, Pipeline, embedder_params

from . import names
from .checkpoint import Checkpoint

_NO_MODULES = Pipeline(kind="embedding")

LENGTH = 256
"""Tokens in a random row, more than the usual window of 128 spans."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verification:
    """The differences between checkpoints a and b. Numbers are largest absolute differences."""

    tolerance: float
    config: dict[str, tuple[Any, Any]]
    """Fields that differ, of the architecture and of what follows it, with both values."""
    missing: dict[str, list[str]]
    """Tensors that only "a" or only "b" has, and under "shape" those of two shapes."""
    tensors: int
    """How many were compared."""
    worst: tuple[str, float]
    """The name of the tensor that differs most, and by how much."""
    hidden: float | None
    """Of hidden states on random packed rows; None where nothing could be computed."""
    logits: float | None
    """Of what the head makes of them: logits, or the vectors of an embedding model; None also for
    a model that ends in hidden states."""

    @property
    def equal(self) -> bool:
        """Same config and names, and every difference within the tolerance."""
        differences = [self.worst[1], *(x for x in (self.hidden, self.logits) if x is not None)]
        within = all(x <= self.tolerance for x in differences)  # NaN is not
        return within and not self.config and not any(self.missing.values())

    def __str__(self) -> str:
        """The result for people; its last line is the verdict."""
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        found = [f"config: {k} is {a!r} and {b!r}" for k, (a, b) in self.config.items()]
        for where, tensors in self.missing.items():
            what = "of two shapes" if where == "shape" else f"only in {where}"
            found += [f"{what}: {', '.join(tensors)}"] if tensors else []
        found.append(f"tensors: {self.tensors} compared, worst {self.worst[0]} {self.worst[1]:.3g}")
        for what, number in (("hidden states", self.hidden), ("logits", self.logits)):
            found += [] if number is None else [f"{what}: {number:.3g}"]
        return [*found, f"{'equal' if self.equal else 'NOT equal'} within {self.tolerance:g}"]


def verify(
    a: str | os.PathLike | Checkpoint,
    b: str | os.PathLike | Checkpoint,
    *,
    tolerance: float = 1e-5,
    rows: int = 2,
    seed: int = 0,
) -> Verification:
    """Compares two checkpoints, given as such or by the path of a directory of any format.

    Args:
        a, b: what to compare.
        tolerance: on the largest absolute difference of any tensor, hidden state or logit.
        rows: number of random rows of `LENGTH` tokens, of a few documents each.
        seed: of those rows.
    """
    from . import load

    a, b = (x if isinstance(x, Checkpoint) else load(x) for x in (a, b))
    left, right = _tensors(a), _tensors(b)
    shared = [name for name in left if name in right]
    shaped = [name for name in shared if left[name].shape == right[name].shape]
    differences = {name: _difference(left[name], right[name]) for name in shaped}
    config = _differing(a.config, b.config)
    computable = len(shaped) == len(shared) and {"vocab_size", "hidden_size"}.isdisjoint(config)
    config |= {"head": (a.head, b.head)} if a.head != b.head else {}
    config |= _differing(a.pipeline or _NO_MODULES, b.pipeline or _NO_MODULES)
    hidden = logits = None
    if computable:
        batch = random_rows(a.config, rows, seed)
        (hidden_a, logits_a), (hidden_b, logits_b) = _compute(a, batch), _compute(b, batch)
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
    """Random documents in packed rows: three in each, and some padding behind them."""
    rng = np.random.default_rng(seed)
    lengths = [LENGTH // 2, LENGTH // 4, LENGTH // 8]
    documents = [rng.integers(0, config.vocab_size, n) for n in lengths * rows]
    return packing.rows_from(documents, np.arange(3 * rows).reshape(rows, 3).tolist(), LENGTH)


def _tensors(checkpoint: Checkpoint) -> Mapping[str, np.ndarray]:
    return names.to_tensors(checkpoint.params, checkpoint.rows())


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest absolute difference, in float64; equal infinities and NaNs do not differ."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    if np.array_equal(a, b, equal_nan=True):
        return 0.0
    return float(np.max(np.abs(a - b)))


def _badness(item: tuple[str, float]) -> float:
    return np.inf if np.isnan(item[1]) else item[1]


def _differing(a: Any, b: Any) -> dict[str, tuple[Any, Any]]:
    left, right = ({f.name: getattr(x, f.name) for f in dataclasses.fields(x)} for x in (a, b))
    return {k: (left[k], right[k]) for k in left if left[k] != right[k]}


def _compute(checkpoint: Checkpoint, batch: packing.Rows) -> tuple[np.ndarray, np.ndarray | None]:
    """Hidden states at the tokens of documents, and what the model makes of them."""
    params = jax.tree.map(lambda x: x.astype(np.float32), checkpoint.params)
    steps = checkpoint.pipeline.steps if checkpoint.pipeline else ()
    found = _program(checkpoint.config, checkpoint.head, checkpoint.labels, steps)(params, batch)
    tokens = batch.segment_ids > 0
    # What has a row for every token has them for padding too.
    hidden, out = (None if x is None else np.asarray(x) for x in found)
    by_token = out is not None and out.shape[:2] == tokens.shape
    return hidden[tokens], out[tokens] if by_token else out


@functools.lru_cache(maxsize=2)
def _program(config: ModernBertConfig, head: str, labels: int, steps: tuple) -> Callable:
    """Compiled once for two checkpoints of one architecture."""

    def run(params, rows):
        if head == "none":
            model = Embedder(config, steps=steps).bind({"params": embedder_params(params)})
            hidden = model.encoder(*rows)
            return hidden, model.vectors(hidden, rows.segment_ids, 3) if steps else None
        model = HEADS[head].build(config, Runtime(), labels).bind({"params": params})
        hidden = model.hidden(*rows)
        return hidden, model.logits(hidden)

    return jax.jit(run)

"""Regression: a number for a text or a pair of texts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError

from . import scores
from .example import Example
from .records import Record
from .task import Outputs, targets
from .text_task import TextTask, stacked

LARGEST = 1e16
"""Largest target: sums of the squares of a million of them are finite in float32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(TextTask):
    """One number. Targets are float."""

    kind = "regression"
    problem_type = "regression"
    default_metric = "spearman"
    outputs = 1
    label_names = ("score",)
    metric_names = ("pearson", "spearman", "mean_squared_error", "mean_absolute_error")

    def target(self, record: Record) -> float:
        value = record.number(self.label_column)
        if abs(value) > LARGEST:
            raise UserError(
                f"{self.label_column!r} is {value:g}; the loss, computed in float32, has room for"
                f" numbers up to {LARGEST:g}; scale them"
            )
        return value

    def metrics(self, examples: Sequence[Example], outputs: Outputs) -> dict[str, float]:
        actual = np.array(targets(examples), np.float64)
        predicted = stacked(outputs)[:, 0].astype(np.float64)
        return {
            "pearson": scores.pearson(actual, predicted),
            "spearman": scores.spearman(actual, predicted),
            "mean_squared_error": float(np.square(actual - predicted).mean()),
            "mean_absolute_error": float(np.abs(actual - predicted).mean()),
        }

    def predict(self, example: Example, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        return {"score": float(logits[0][0])}

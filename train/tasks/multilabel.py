"""Any number of labels for a text or a pair of texts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError

from . import labels, scores
from .classification import found
from .example import Example
from .labels import Labelled
from .records import Record, Records
from .task import Outputs, sigmoid, targets
from .text_task import TextTask, stacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(Labelled, TextTask):
    """Every label by itself, there or not. Targets are float32 [K] of ones and zeros."""

    kind = "multilabel"
    problem_type = "multi_label_classification"
    default_metric = "f1_micro"

    label_column: str = "labels"
    """Column with a list of names; or of as many ones and zeros as there are labels."""
    labels: tuple[str, ...] = ()
    """Names in the order of the outputs; none are taken from the training data."""
    thresholds: tuple[float, ...] = ()
    """The probability from which on a label is there: one for all, or one each; none is 0.5."""

    def __post_init__(self):
        labels.check(self.labels)
        if len(self.thresholds) > 1 and len(self.thresholds) != len(self.labels):
            raise UserError(
                f"thresholds has {len(self.thresholds)} entries for {len(self.labels)} labels; give"
                " one for all, or one each"
            )
        for value in self.thresholds:
            if not 0 <= value <= 1:
                raise UserError(f"thresholds holds {value}; it must lie between 0 and 1")
        super().__post_init__()

    @property
    def metric_names(self) -> tuple[str, ...]:
        averages = [n for n in scores.LABEL_METRICS if n.endswith(("macro", "micro", "weighted"))]
        return (*averages, "exact_match", "hamming_loss")

    def with_labels(self, records: Records) -> "MultiLabel":
        if self.labels:
            return self
        return dataclasses.replace(self, labels=found(self, records, many=True))

    def target(self, record: Record) -> np.ndarray:
        values = record.list(self.label_column)
        flags = all(isinstance(v, int | float) and v in (0, 1) for v in values)
        if flags and self._index.by_number and len(values) == self.outputs:
            return np.array(values, np.float32)
        target = np.zeros(self.outputs, np.float32)
        for value in values:
            target[self._index[value]] = 1
        return target

    def stratum(self, record: Record) -> str:
        return "\n".join(sorted(map(labels.name, record.list(self.label_column))))

    def metrics(self, examples: Sequence[Example], outputs: Outputs) -> dict[str, float]:
        actual = np.stack(targets(examples)) > 0
        predicted = self._decided(sigmoid(stacked(outputs)))
        counts = scores.ClassCounts((actual & predicted).sum(0), predicted.sum(0), actual.sum(0))
        return {
            **scores.averages(counts, absent=True),
            "exact_match": float((actual == predicted).all(1).mean()),
            "hamming_loss": float((actual != predicted).mean()),
        }

    def tuned(self, examples: Sequence[Example], outputs: Outputs) -> "MultiLabel":
        """With the threshold of the best F1 for each label; of equally good ones the widest gap."""
        actual = np.stack(targets(examples)) > 0
        chances = sigmoid(stacked(outputs))
        best = tuple(_threshold(a, p) for a, p in zip(actual.T, chances.T, strict=True))
        return dataclasses.replace(self, thresholds=best)

    def _decided(self, chances: np.ndarray) -> np.ndarray:
        return chances >= np.array(self.thresholds or (0.5,))

    def predictions(self, examples: Sequence[Example], outputs: Outputs) -> list[dict[str, Any]]:
        chances = sigmoid(stacked(outputs)) if examples else np.zeros((0, self.outputs))
        return [
            {
                "id": example.id,
                "labels": [n for n, there in zip(self.labels, row, strict=True) if there],
                "scores": dict(zip(self.labels, p.tolist(), strict=True)),
            }
            for example, p, row in zip(examples, chances, self._decided(chances), strict=True)
        ]


def _threshold(actual: np.ndarray, chances: np.ndarray) -> float:
    """Halfway between two neighbouring probabilities, such that F1 is highest.

    A label that never occurs, or is never told apart, keeps 0.5.
    """
    order = np.argsort(-chances, kind="stable")
    ranked, hits = chances[order], np.cumsum(actual[order])
    if not hits[-1]:
        return 0.5
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    gaps = ranked - np.append(ranked[1:], 0.0)
    f1 = np.where(gaps > 0, f1, -1)  # equal probabilities cannot be told apart
    best = int(np.lexsort((gaps, f1))[-1])
    return float(ranked[best] - gaps[best] / 2)

"""Multi-label classification: any number of labels for a text or a pair of texts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Share

from . import labels, scores
from .example import Example
from .labels import Labelled
from .records import Record, Records
from .task import Outputs, sigmoid, targets
from .text_task import TextTask, stacked


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(Labelled, TextTask):
    """Each label independently, present or not. Targets are float32 [K] of ones and zeros."""

    kind = "multilabel"
    problem_type = "multi_label_classification"
    default_metric = "f1_micro"

    label_column: str = "labels"
    """Column with a list of names; or with a one or zero per label."""
    labels: tuple[str, ...] = ()
    """Names in the order of the outputs. By default those of the training data."""
    thresholds: tuple[Share, ...] = ()
    """Probability from which on a label is predicted: one for all, or one each. By default 0.5."""

    def __post_init__(self):
        labels.check(self.labels)
        if len(self.thresholds) > 1 and len(self.thresholds) != len(self.labels):
            raise UserError(
                f"thresholds has {len(self.thresholds)} entries for {len(self.labels)} labels; give"
                " one for all, or one each"
            )
        super().__post_init__()

    @property
    def metric_names(self) -> tuple[str, ...]:
        return (*scores.AVERAGED, "exact_match", "hamming_loss")

    def with_labels(self, records: Records) -> "MultiLabel":
        if self.labels:
            return self
        names = self.labels_in(records, least=1)
        if self.label_column not in records.names:
            lists = [self.named_in(record) for record in records]
            lengths = {len(values) for values in lists}
            if len(lengths) == 1 and min(lengths) > 1 and all(map(_are_flags, lists)):
                raise UserError(
                    f"column {self.label_column!r} holds {min(lengths)} ones and zeros in each"
                    " record; name the labels that they stand for in the task's labels"
                )
        return dataclasses.replace(self, labels=names)

    def target(self, record: Record) -> np.ndarray:
        values = self.named_in(record)
        if self._index.by_number and len(values) == self.outputs and _are_flags(values):
            return np.array(values, np.float32)
        target = np.zeros(self.outputs, np.float32)
        for value in values:
            if target[self._index[value]]:
                raise UserError(f"{self.label_column!r} names {value!r} twice")
            target[self._index[value]] = 1
        return target

    def stratum(self, record: Record) -> str:
        return "\n".join(sorted(map(labels.name, self.named_in(record))))

    def named_in(self, record: Record) -> list[Any]:
        """The record's labels. Raises `UserError` for text with other separators than spaces."""
        values, cell = record.list(self.label_column), record.need(self.label_column)
        if isinstance(cell, str) and values == cell.split() and any(c in cell for c in ",;|"):
            raise UserError(
                f"{self.label_column!r} is {cell!r}; write a JSON list, or names between spaces"
            )
        return values

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
        """The task with each label's threshold of best F1; among equals, that in the widest gap."""
        actual = np.stack(targets(examples)) > 0
        probabilities = sigmoid(stacked(outputs))
        best = tuple(_threshold(a, p) for a, p in zip(actual.T, probabilities.T, strict=True))
        return dataclasses.replace(self, thresholds=best)

    def _decided(self, probabilities: np.ndarray) -> np.ndarray:
        return probabilities >= np.array(self.thresholds or (0.5,))

    def predict(self, example: Example, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        (probabilities,) = sigmoid(stacked([logits]))
        decided = self._decided(probabilities)
        return {
            "labels": [n for n, present in zip(self.labels, decided, strict=True) if present],
            "scores": dict(zip(self.labels, probabilities.tolist(), strict=True)),
        }


def _are_flags(values: Sequence[Any]) -> bool:
    """Whether a list has a one or zero per label, perhaps as text."""
    return all(isinstance(v, int | float | str) and v in (0, 1, "0", "1") for v in values)


def _threshold(actual: np.ndarray, probabilities: np.ndarray) -> float:
    """The middle between two neighbouring probabilities that gives the highest F1.

    A label that never occurs, or that cannot be distinguished, keeps 0.5.
    """
    order = np.argsort(-probabilities, kind="stable")
    ranked, hits = probabilities[order], np.cumsum(actual[order])
    if not hits[-1]:
        return 0.5
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + hits[-1])
    gaps = ranked - np.append(ranked[1:], 0.0)
    f1 = np.where(gaps > 0, f1, -1)  # no threshold separates equal probabilities
    best = int(np.lexsort((gaps, f1))[-1])
    return float(ranked[best] - gaps[best] / 2)

"""Classification: one label for a text or a pair of texts."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError

from . import labels, scores
from .example import Example
from .labels import Labelled
from .records import Record, Records
from .task import Outputs, softmax, targets
from .text_task import TextTask, stacked

_OF_TWO_LABELS = ("f1", "precision", "recall", "auroc")
_OF_GROUPS = ("f1a", "exact_match", "multirc")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Labelled, TextTask):
    """One of several labels. Targets are int, the label's index in `labels`."""

    kind = "classification"
    problem_type = "single_label_classification"
    default_metric = "accuracy"

    labels: tuple[str, ...] = ()
    """Names in the order of the outputs; of two, the positive one last. By default those of the
    training data. Numbers in the data are indices from 0 if no name is a number."""
    group_column: str = ""
    """Column, or template of columns, that the answers to one question share; adds MultiRC's
    metrics."""

    def __post_init__(self):
        labels.check(self.labels, 2)
        if self.group_column and self.labels and len(self.labels) != 2:
            raise UserError("group_column is for two labels, wrong and right")
        super().__post_init__()

    @property
    def answers(self) -> tuple[str, ...]:
        return (*super().answers, *([self.group_column] if self.group_column else []))

    @property
    def metric_names(self) -> tuple[str, ...]:
        two = _OF_TWO_LABELS if len(self.labels) in (0, 2) else ()
        return (*scores.LABEL_METRICS, *two, *(_OF_GROUPS if self.group_column else ()))

    @property
    def other_names(self) -> Mapping[str, str]:
        return dict.fromkeys(scores.SAME_AS_ACCURACY, "accuracy")

    def with_labels(self, records: Records) -> "Classification":
        return self if self.labels else dataclasses.replace(self, labels=self.labels_in(records))

    def target(self, record: Record) -> int:
        return self._index[record.need(self.label_column)]

    def source(self, record: Record) -> str | None:
        return record.text(self.group_column) if self.group_column else None

    def stratum(self, record: Record) -> str:
        return labels.name(record.need(self.label_column))

    def metrics(self, examples: Sequence[Example], outputs: Outputs) -> dict[str, float]:
        actual, logits = targets(examples), stacked(outputs)
        predicted = logits.argmax(-1)
        metrics = scores.label_metrics(actual, predicted, self.outputs)
        if self.outputs == 2:
            metrics["auroc"] = scores.auroc(actual, logits[:, 1] - logits[:, 0])
        if self.group_column:
            metrics |= scores.grouped([e.source for e in examples], actual, predicted)
        return metrics

    def predict(self, example: Example, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        (probabilities,) = softmax(stacked([logits]))
        return {
            "label": self.labels[int(probabilities.argmax())],
            "score": float(probabilities.max()),
            "scores": dict(zip(self.labels, probabilities.tolist(), strict=True)),
        }

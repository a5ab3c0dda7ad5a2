"""One label for a text or a pair of texts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError

from . import labels, scores
from .example import Example
from .labels import Labelled
from .records import Problems, Record, Records
from .task import Outputs, softmax, targets
from .text_task import TextTask, stacked

_OF_TWO = ("f1", "precision", "recall", "auroc")
_OF_GROUPS = ("f1a", "exact_match", "multirc")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Labelled, TextTask):
    """One of several labels. Targets are int, the label's place in `labels`."""

    kind = "classification"
    problem_type = "single_label_classification"
    default_metric = "accuracy"

    labels: tuple[str, ...] = ()
    """Names in the order of the outputs, the positive one last of two; none are taken from the
    training data. Numbers in the data count from 0 where no name is a number."""
    group_column: str = ""
    """Column, or template of columns, that the answers to one question share: adds MultiRC's
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
        two = _OF_TWO if len(self.labels) in (0, 2) else ()
        return (*scores.LABEL_METRICS, *two, *(_OF_GROUPS if self.group_column else ()))

    def with_labels(self, records: Records) -> "Classification":
        return self if self.labels else dataclasses.replace(self, labels=found(self, records))

    def target(self, record: Record) -> int:
        return self._index[record.need(self.label_column)]

    def source(self, record: Record) -> str | None:
        return record.text(self.group_column) if self.group_column else None

    def stratum(self, record: Record) -> str:
        return labels.name(record.need(self.label_column))

    def metrics(self, examples: Sequence[Example], outputs: Outputs) -> dict[str, float]:
        actual, logits = targets(examples), stacked(outputs)
        predicted = logits.argmax(-1)
        measured = scores.label_metrics(actual, predicted, self.outputs)
        if self.outputs == 2:
            measured["auroc"] = scores.auroc(actual, logits[:, 1] - logits[:, 0])
        if self.group_column:
            measured |= scores.grouped([e.source for e in examples], actual, predicted)
        return measured

    def predictions(self, examples: Sequence[Example], outputs: Outputs) -> list[dict[str, Any]]:
        chances = softmax(stacked(outputs)) if examples else np.zeros((0, self.outputs))
        return [
            {
                "id": example.id,
                "label": self.labels[int(p.argmax())],
                "score": float(p.max()),
                "scores": dict(zip(self.labels, p.tolist(), strict=True)),
            }
            for example, p in zip(examples, chances, strict=True)
        ]


def found(task: TextTask, records: Records, many: bool = False) -> tuple[str, ...]:
    """The label names of training records: those that the file declares, or else all that occur.

    Raises:
        UserError: no labels at all, or only one; a column that is missing, or no label in it.
    """
    declared = records.names.get(task.label_column)
    if declared:
        return declared
    task.check_columns(records)
    problems, occurring = Problems(), set()
    for record in records:
        with problems.at(record.place):
            value = record.get(task.label_column)
            values = record.list(task.label_column) if many else [value]
            occurring |= {labels.name(v) for v in values if v is not None}
    problems.check()
    names = labels.ordered(occurring)
    if not names or (len(names) < 2 and not many):
        raise UserError(
            f"column {task.label_column!r} of the training data has"
            f" {f'only the label {names[0]!r}' if names else 'no labels'}; name the labels"
        )
    return names

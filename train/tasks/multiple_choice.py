"""Multiple choice: which continuation, answer or option fits a context."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.tokenizer import Tokenizer

from . import labels
from .example import Example
from .records import Record, Records
from .scores import share
from .task import Outputs, Task, softmax, targets


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoice(Task):
    """One of several options, each paired with the context in a sequence of its own.

    Records may differ in the number of options. Targets are int, the right option's index.
    """

    kind = "choice"
    head = "multiple_choice"
    default_metric = "accuracy"
    outputs = 1
    metric_names = ("accuracy",)

    context: str = "question"
    """Column of the text that all options share, or a template such as "{sent1} {sent2}"."""
    options: tuple[str, ...] = ("choices",)
    """Column of a list of options; or a column or template for each one."""
    label_column: str = "label"
    """Column of the right option: its index from 0, or its name in `labels`."""
    labels: tuple[str, ...] = ()
    """Names of the options, such as A, B, C and D. By default indices from 0."""

    def __post_init__(self):
        labels.check(self.labels, 2)
        if not self.options:
            raise UserError("options is empty; name the column of a list, or one for each option")
        super().__post_init__()

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.context, *self.options)

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.label_column,)

    def with_labels(self, records: Records) -> "MultipleChoice":
        declared = () if self.labels else records.names.get(self.label_column, ())
        return dataclasses.replace(self, labels=declared) if declared else self

    def stratum(self, record: Record) -> str:
        return labels.name(record.need(self.label_column))

    def parse(self, record: Record, labelled: bool) -> Any:
        context = record.text(self.context)
        if len(self.options) == 1 and "{" not in self.options[0]:
            options = record.list(self.options[0])
        else:
            options = [record.text(option) for option in self.options]
        bad = [o for o in options if not isinstance(o, str) or not o.strip()]
        if bad or len(options) < 2:
            what = f"an option that is {bad[0]!r}" if bad else f"{len(options)} options"
            raise UserError(f"has {what}; it needs two texts or more")
        return context, options, self._target(record, len(options)) if labelled else None

    def _target(self, record: Record, options: int) -> int:
        value = record.need(self.label_column)
        target = labels.Index(self.labels or tuple(map(str, range(options))))[value]
        if target >= options:
            raise UserError(f"label {value!r} is option {target}, but there are only {options}")
        return target

    def encode(
        self, ids: Sequence[str], places: Sequence[str], parsed: Sequence[Any], tokenizer: Tokenizer
    ) -> list[Example]:
        pairs = [(context, option) for context, options, _ in parsed for option in options]
        of_pairs: list[bool] = []
        tokens = iter(tokenizer.encode_pairs(pairs, max_length=self.max_length, cut=of_pairs))
        cut = iter(of_pairs)
        return [
            Example(
                id=i,
                sequences=tuple(np.array(next(tokens), np.int32) for _ in options),
                target=target,
                cut=sum(next(cut) for _ in options) > 0,
            )
            for i, (_, options, target) in zip(ids, parsed, strict=True)
        ]

    def metrics(self, examples: Sequence[Example], outputs: Outputs) -> dict[str, float]:
        predicted = [int(_scores(logits).argmax()) for logits in outputs]
        hits = sum(a == b for a, b in zip(targets(examples), predicted, strict=True))
        return {"accuracy": float(share(hits, len(predicted)))}

    def predict(self, example: Example, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        probabilities = softmax(_scores(logits))
        choice = int(probabilities.argmax())
        label = {"label": self.labels[choice]} if self.labels else {}
        return {"choice": choice, "scores": probabilities.tolist(), **label}


def _scores(logits: Sequence[np.ndarray]) -> np.ndarray:
    """One logit per option: float32 [options]."""
    return np.array([np.reshape(x, -1)[0] for x in logits], np.float32)

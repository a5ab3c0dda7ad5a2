"""Base of tasks that predict a label, several labels or a number for a text or a pair of texts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.tokenizer import Tokenizer

from . import labels
from .example import Example
from .records import Problems, Record, Records
from .task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """A task with one pooled sequence per record."""

    head = "sequence_classification"

    columns: tuple[str, ...] = ("text",)
    """Column of the text, or two columns for a pair; or templates such as "{question} {answer}"."""
    label_column: str = "label"
    """Column of the answer."""
    allow_empty: bool = False
    """Whether to accept records without text, instead of reporting them."""

    def __post_init__(self):
        if not 1 <= len(self.columns) <= 2:
            raise UserError(
                f"columns has {len(self.columns)} entries; it must name one text or a pair. Join"
                ' several with a template: "{question} {answer}"'
            )
        super().__post_init__()

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.columns

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.label_column,)

    def named_in(self, record: Record) -> list[Any]:
        """The labels of a record as the file writes them; empty if it has none."""
        value = record.get(self.label_column)
        return [] if value is None else [value]

    def labels_in(self, records: Records, least: int = 2) -> tuple[str, ...]:
        """Label names of training records: those that the file declares, or else all that occur.

        Args:
            records: Training records.
            least: Number of labels that the task needs.

        Raises:
            UserError: fewer labels; a missing column, or a value that is no label.
        """
        if declared := records.names.get(self.label_column):
            return declared
        self.check_columns(records)
        problems, names = Problems(), set()
        for record in records:
            with problems.at(record.place):
                names |= set(map(labels.found, self.named_in(record)))
        problems.check()
        ordered = labels.ordered(names, self.label_column)
        if len(ordered) < least:
            raise UserError(
                f"column {self.label_column!r} of the training data has"
                f" {f'only the label {ordered[0]!r}' if ordered else 'no labels'}; name the labels"
            )
        return ordered

    def target(self, record: Record) -> Any:
        """The record's target. Raises `UserError`."""
        raise NotImplementedError

    def source(self, record: Record) -> Any:
        """Facts that metrics need besides the target."""
        return None

    def parse(self, record: Record, labelled: bool) -> Any:
        texts = tuple(record.text(c, self.allow_empty) for c in self.columns)
        return texts, *((self.target(record), self.source(record)) if labelled else (None, None))

    def encode(
        self, ids: Sequence[str], places: Sequence[str], parsed: Sequence[Any], tokenizer: Tokenizer
    ) -> list[Example]:
        texts = [record_texts for record_texts, _, _ in parsed]
        cut: list[bool] = []
        if len(self.columns) == 1:
            tokens = tokenizer.encode([t for (t,) in texts], max_length=self.max_length, cut=cut)
        else:
            tokens = tokenizer.encode_pairs(texts, max_length=self.max_length, cut=cut)
        return [
            Example(id=i, sequences=(np.array(t, np.int32),), target=target, source=source, cut=c)
            for i, t, c, (_, target, source) in zip(ids, tokens, cut, parsed, strict=True)
        ]


def stacked(outputs: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Logits of examples with one sequence each: float32 [examples, outputs]."""
    return np.stack([np.asarray(logits, np.float32) for (logits,) in outputs])

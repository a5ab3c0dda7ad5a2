"""Tasks on a text or a pair of texts, of which each gets one label, several or a number."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.tokenizer import Tokenizer

from .example import Example
from .records import Record
from .task import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """One sequence a record, read out as a whole."""

    head = "sequence_classification"

    columns: tuple[str, ...] = ("text",)
    """The column of the text, or the two of a pair; or templates such as "{question} {answer}"."""
    label_column: str = "label"
    """Column of the answer."""
    allow_empty: bool = False
    """Takes records without text, too, instead of reporting them."""

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

    def target(self, record: Record) -> Any:
        """The record's answer. Raises `UserError`."""
        raise NotImplementedError

    def source(self, record: Record) -> Any:
        """What metrics need besides the target."""
        return None

    def parse(self, record: Record, labelled: bool) -> Any:
        texts = tuple(record.text(c, self.allow_empty) for c in self.columns)
        target = self.target(record) if labelled else None
        return texts, target, self.source(record) if labelled else None

    def encode(
        self, ids: Sequence[str], places: Sequence[str], parsed: Sequence[Any], tokenizer: Tokenizer
    ) -> list[Example]:
        texts = [found[0] for found in parsed]
        if len(self.columns) == 1:
            tokens = tokenizer.encode([t for (t,) in texts], max_length=self.max_length)
        else:
            tokens = tokenizer.encode_pairs(texts, max_length=self.max_length)
        return [
            Example(id=i, sequences=(np.array(t, np.int32),), target=target, source=source)
            for i, t, (_, target, source) in zip(ids, tokens, parsed, strict=True)
        ]


def stacked(outputs: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Logits of examples with one sequence each: float32 [examples, outputs]."""
    return np.stack([np.asarray(logits, np.float32) for (logits,) in outputs])

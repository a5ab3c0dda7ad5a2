"""What all tasks have in common: from records to examples, from outputs to metrics."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.tokenizer import Tokenizer

from .example import Example
from .records import Problems, Record, Records, columns_of

Outputs = Sequence[Sequence[np.ndarray]]
"""float32 logits of sequence j of example i at [i][j]: [outputs], or [tokens, outputs]."""

_CHUNK = 8192
"""Records that are tokenised at once."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A kind of supervised task with its options. Immutable; every method is pure."""

    kind: ClassVar[str]
    """Its key in `TASKS`."""
    head: ClassVar[str]
    """The model's head: a key of `convert.names.HEADS`."""
    level: ClassVar[Literal["document", "token"]] = "document"
    """Where logits are read: from pooled sequences, or from every token."""
    problem_type: ClassVar[str | None] = None
    """What an exported `config.json` calls it."""
    default_metric: ClassVar[str]

    max_length: int = 512
    """The longest sequence in tokens, special ones included."""
    id_column: str = "id"
    """Column of the records' ids, used where it is there; "" never is."""
    best_metric: str = ""
    """The metric that model selection maximises; "" is the usual one of the task."""

    def __post_init__(self):
        if self.max_length < 8:
            raise UserError(f"max_length is {self.max_length}; it must be 8 or more tokens")
        if not self.best_metric:
            object.__setattr__(self, "best_metric", self.default_metric)
        known = [n for n in self.metric_names if not n.endswith(("loss", "error"))]
        if self.best_metric not in known:
            raise UserError(
                f"best_metric is {self.best_metric!r}; {did_you_mean(self.best_metric, known)}"
            )
        for source in (*self.inputs, *self.answers):
            columns_of(source)

    # --- what a task says of itself -------------------------------------------------------------

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """Width of the classifier; 0 while labels are unknown."""

    @property
    @abc.abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """What `metrics` gives."""

    @property
    @abc.abstractmethod
    def inputs(self) -> tuple[str, ...]:
        """Columns, or templates of columns, that the model reads."""

    @property
    def answers(self) -> tuple[str, ...]:
        """Columns that only labelled records have."""
        return ()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classifier's outputs, for `id2label`; empty where they have none."""
        return ()

    def with_labels(self, records: Records) -> "Task":
        """The task with the labels of these training records, where none are configured.

        Files that declare label names decide their order; otherwise names are sorted.
        """
        return self

    def tuned(self, examples: Sequence[Example], outputs: Outputs) -> "Task":
        """The task with the thresholds that are best on these, where it has any."""
        return self

    def stratum(self, record: Record) -> str:
        """What a stratified split keeps the shares of; "" for all alike."""
        return ""

    # --- from records to examples ---------------------------------------------------------------

    @abc.abstractmethod
    def parse(self, record: Record, labelled: bool) -> Any:
        """What there is to tokenise in a record, checked. Raises `UserError`."""

    @abc.abstractmethod
    def encode(
        self, ids: Sequence[str], places: Sequence[str], parsed: Sequence[Any], tokenizer: Tokenizer
    ) -> list[Example]:
        """Examples from what `parse` gave. Raises `UserError`."""

    def examples(
        self, records: Records, tokenizer: Tokenizer, labelled: bool = True
    ) -> list[Example]:
        """One example for each record.

        Args:
            records: as `read` gives them.
            tokenizer: the model's.
            labelled: False leaves targets out, and does not ask for their columns.

        Raises:
            UserError: one line with the first few of all problems, each with its place.
        """
        if labelled and not self.outputs:
            raise UserError("labels are unknown; give the task's labels, or training data")
        problems, ids, parsed = Problems(), [], []
        self.check_columns(records, labelled)
        seen: dict[str, str] = {}
        for record in records:
            with problems.at(record.place):
                parsed.append(self.parse(record, labelled))
            ids.append(self._id(record))
            if ids[-1] in seen:
                problems.add(
                    f"{record.place}: id {ids[-1]!r} is that of {seen[ids[-1]]} too; make it"
                    f' unique, or set id_column to ""'
                )
            seen.setdefault(ids[-1], record.place)
        problems.check()
        places = [record.place for record in records]
        found: list[Example] = []
        for i in range(0, len(parsed), _CHUNK):
            part = slice(i, i + _CHUNK)
            found += self.encode(ids[part], places[part], parsed[part], tokenizer)
        return found

    def _id(self, record: Record) -> str:
        value = record.get(self.id_column) if self.id_column else None
        return record.place if value is None else str(value)

    def check_columns(self, records: Records, labelled: bool = True) -> None:
        """Raises `UserError` for columns that a whole file lacks, once and not for every record."""
        problems = Problems()
        files: dict[str, list[Record]] = {}
        for record in records:
            files.setdefault(record.place.rpartition(":")[0], []).append(record)
        sources = (*self.inputs, *(self.answers if labelled else ()))
        for file, found in files.items():
            for column in dict.fromkeys(c for source in sources for c in columns_of(source)):
                key = column.split(".")[0]
                if not any(column in r.values or key in r.values for r in found):
                    has = dict.fromkeys(k for r in found for k in r.values)
                    problems.add(f"{file}: has no column {column!r}; it has {', '.join(has)}")
        problems.check()

    # --- from outputs to metrics ----------------------------------------------------------------

    @abc.abstractmethod
    def metrics(self, examples: Sequence[Example], outputs: Outputs) -> dict[str, float]:
        """Every metric of the task, by its name; shares lie between 0 and 1."""

    @abc.abstractmethod
    def predictions(self, examples: Sequence[Example], outputs: Outputs) -> list[dict[str, Any]]:
        """What the model says of each example, ready for JSON: "id" and what the task adds."""


def targets(examples: Sequence[Example]) -> list[Any]:
    """The targets of all examples. Raises `UserError` where one has none, or there are none."""
    if not examples:
        raise UserError("there are no examples to measure")
    for example in examples:
        if example.target is None:
            raise UserError(f"{example.id}: has no label to measure by")
    return [example.target for example in examples]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis, in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """In float64, for large negative numbers too."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))

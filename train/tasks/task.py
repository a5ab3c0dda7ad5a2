"""The interface of all tasks: records to examples, and outputs to metrics and predictions."""

import abc
import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

import numpy as np

from modernbert_jax import ranges
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.text import check_text
from modernbert_jax.ranges import Length
from modernbert_jax.tokenizer import Tokenizer

from .example import Example
from .records import Problems, Record, Records, columns_of

Outputs = Sequence[Sequence[np.ndarray]]
"""float32 logits of sequence j of example i at [i][j]: [outputs], or [tokens, outputs]."""

_CHUNK = 8192
"""Records tokenised at a time."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """A kind of supervised task with its options. Immutable; every method is pure."""

    kind: ClassVar[str]
    """Key in `TASKS`."""
    head: ClassVar[str]
    """The model's head: a key of `convert.names.HEADS`."""
    level: ClassVar[Literal["document", "token"]] = "document"
    """Whether logits belong to pooled sequences or to every token."""
    spaced: ClassVar[bool] = False
    """Whether the tokenizer adds a space before texts that begin with none, as words have one."""
    problem_type: ClassVar[str | None] = None
    """`problem_type` of an exported `config.json`."""

    max_length: Length = 512
    """Maximum tokens of a sequence, special ones included."""
    id_column: str = "id"
    """Column of the records' ids, if the data have it; "" numbers records by place."""
    best_metric: str = ""
    """Metric that model selection maximises; "" is the task's usual one."""

    def __post_init__(self):
        ranges.check(self)
        if not self.best_metric:
            object.__setattr__(self, "best_metric", self.default_metric)
        object.__setattr__(
            self, "best_metric", self.other_names.get(self.best_metric, self.best_metric)
        )
        known = [n for n in self.metric_names if not n.endswith(("loss", "error"))]
        if self.best_metric not in known:
            raise UserError(
                f"best_metric is {self.best_metric!r}; {did_you_mean(self.best_metric, known)}"
            )
        for source in (*self.inputs, *self.answers):
            columns_of(source)

    def shortened(self, most: int) -> Self:
        """The task with sequences of at most `most` tokens.

        Where the task has windows, they share at most half of their tokens.
        """
        length = min(self.max_length, most)
        changes: dict[str, Any] = {"max_length": length}
        if hasattr(self, "stride"):
            changes["stride"] = min(self.stride, length // 2)
        return dataclasses.replace(self, **changes)

    # --- properties -----------------------------------------------------------------------------

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """Width of the classifier; 0 while labels are unknown."""

    @property
    @abc.abstractmethod
    def default_metric(self) -> str:
        """Usual metric of model selection, one of `metric_names`."""

    @property
    @abc.abstractmethod
    def metric_names(self) -> tuple[str, ...]:
        """Keys of `metrics`."""

    @property
    def other_names(self) -> Mapping[str, str]:
        """Names of metrics that always equal one of `metric_names`, which `best_metric` may use."""
        return {}

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
        """Names of the classifier's outputs, for `id2label`; empty if they have none."""
        return ()

    def with_labels(self, records: Records) -> "Task":
        """The task with the labels of these training records, if none are configured.

        Files that declare label names decide their order; otherwise names are sorted.
        """
        return self

    def tuned(self, examples: Sequence[Example], outputs: Outputs) -> "Task":
        """The task with the best thresholds for these outputs, if it has any."""
        return self

    def stratum(self, record: Record) -> str:
        """Key of the group whose share a stratified split preserves; "" is one group."""
        return ""

    # --- records to examples --------------------------------------------------------------------

    @abc.abstractmethod
    def parse(self, record: Record, labelled: bool) -> Any:
        """Check a record and return what `encode` needs of it. Raises `UserError`."""

    @abc.abstractmethod
    def encode(
        self, ids: Sequence[str], places: Sequence[str], parsed: Sequence[Any], tokenizer: Tokenizer
    ) -> list[Example]:
        """Tokenise results of `parse` into examples. Raises `UserError`."""

    def examples(
        self, records: Records, tokenizer: Tokenizer, labelled: bool = True
    ) -> list[Example]:
        """One example per record.

        Args:
            records: Records of `read`.
            tokenizer: The model's tokenizer.
            labelled: False omits targets and does not require their columns.

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
            ids.append(record.place)
            with problems.at(record.place):
                ids[-1] = self._id(record)
            first = seen.setdefault(ids[-1], record.place)
            if first is not record.place:
                problems.add(
                    record.place,
                    f"id {ids[-1]!r} is that of {first} too; make it unique, or set id_column to"
                    ' ""',
                )
        problems.check()
        places = [record.place for record in records]
        examples: list[Example] = []
        for i in range(0, len(parsed), _CHUNK):
            part = slice(i, i + _CHUNK)
            examples += self.encode(ids[part], places[part], parsed[part], tokenizer)
        return examples

    def _id(self, record: Record) -> str:
        """The record's id, or its place. Raises `UserError`."""
        value = record.get(self.id_column) if self.id_column else None
        if value is None:
            return record.place
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UserError(f"{self.id_column!r} is {value!r:.80}; it must be text or a number")
        return check_text(str(value), repr(self.id_column))

    def check_columns(self, records: Records, labelled: bool = True) -> None:
        """Raise `UserError` for columns that a whole file lacks, once per file."""
        problems = Problems()
        files: dict[str, list[Record]] = {}
        for record in records:
            files.setdefault(record.place.rpartition(":")[0], []).append(record)
        for file, rows in files.items():
            present = dict.fromkeys(key for row in rows for key in row.values)
            for column in self.needed(present, labelled):
                if column not in present and column.split(".")[0] not in present:
                    known = ", ".join(present) or "no columns"
                    problems.add(file, f"has no column {column!r}; it has {known}")
        problems.check()

    def needed(self, present: Collection[str], labelled: bool) -> Iterable[str]:
        """Columns that records need, in a file that has the `present` ones."""
        sources = (*self.inputs, *(self.answers if labelled else ()))
        return dict.fromkeys(c for source in sources for c in columns_of(source))

    # --- outputs to metrics and predictions -----------------------------------------------------

    @abc.abstractmethod
    def metrics(self, examples: Sequence[Example], outputs: Outputs) -> dict[str, float]:
        """All metrics of the task by name; shares are between 0 and 1."""

    @abc.abstractmethod
    def predict(self, example: Example, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        """The prediction for one example, ready for JSON.

        Args:
            example: The example.
            logits: Logits of each of its sequences.
        """

    def predictions(self, examples: Sequence[Example], outputs: Outputs) -> list[dict[str, Any]]:
        """Predictions of all examples, each with the example's "id"."""
        return [
            {"id": example.id, **self.predict(example, logits)}
            for example, logits in zip(examples, outputs, strict=True)
        ]


def targets(examples: Sequence[Example]) -> list[Any]:
    """The targets of all examples. Raises `UserError` if there are none, or one has none."""
    if not examples:
        raise UserError("there are no examples to measure")
    for example in examples:
        if example.target is None:
            raise UserError(f"{example.id}: has no label to measure by")
    return [example.target for example in examples]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    shifted = np.asarray(logits, np.float64)
    shifted = np.exp(shifted - shifted.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Sigmoid in float64, accurate for large negative numbers too."""
    return 0.5 * (1 + np.tanh(0.5 * np.asarray(logits, np.float64)))

"""The configuration of a fine-tuning run."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io import typed_json
from modernbert_jax.ranges import Positive, Rate

from ..examples.config import ExamplesConfig, check_file
from ..tasks import TASKS, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intermediate:
    """A run from whose model another one starts."""

    recipe: str = ""
    """A recipe's name, a Python file with config(), or a run's config.json; empty starts from
    `model` itself. Model, mesh and runtime are those of the run that follows."""
    train: str = ""
    """Labelled examples; empty takes those of the recipe."""
    validation: str = ""
    """Labelled examples that choose the best model; empty takes those of the recipe."""
    output: str = ""
    """Folder of the run; empty takes that of the recipe. A finished run in it is used again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig(ExamplesConfig):
    """A fine-tuning run: a model, a task with its data, and how the model learns the task."""

    task: Task
    """The task to learn, and the columns of the data."""
    intermediate: Intermediate = dataclasses.field(default_factory=Intermediate)
    """A run to be done first, from whose model this one starts."""
    train: str = ""
    """Labelled examples: .jsonl, .csv, .tsv (also .gz, .zst, .bz2, .xz), .parquet, .arrow, or a
    folder of `datasets`."""
    validation: str = ""
    """Labelled examples that choose the best model; without them `validation_split` of `train`."""
    test: str = ""
    """Labelled examples that are evaluated once, with the best model at the end."""
    validation_split: Rate = 0.1
    """Share of `train` that is kept apart where `validation` is empty, the same in every label."""

    pooling: Literal["model", "cls", "mean", "max"] = "model"
    """Pooling of a document's tokens into one vector; `model` is the checkpoint's own. transformers
    has no `max`."""
    classifier_dropout: Rate = 0.0
    """Dropout rate in training before the classifier."""
    label_smoothing: Rate = 0.0
    """Share of the probability that is spread evenly over all classes."""
    class_weights: str = "none"
    """Weights of the classes in the loss: `none`, `balanced` (examples / (classes x examples of the
    class)), or numbers separated by commas, in the order of the labels. In a multi-label task they
    are the weights of positives relative to negatives; balanced is negatives / positives."""

    eval_every: Positive = 1.0
    """Epochs between evaluations; the end is evaluated as well."""

    def __post_init__(self):
        super().__post_init__()
        self._expand("train", "validation", "test")
        for name in ("train", "validation", "test"):
            check_file(name, getattr(self, name))
        smooth = ("classification", "tokens")
        for name, off, kinds in (
            ("label_smoothing", 0.0, smooth),
            ("class_weights", "none", (*smooth, "multilabel")),
        ):
            if getattr(self, name) != off and self.task.kind not in kinds:
                raise UserError(f"{name} is for {', '.join(kinds)}; the task is {self.task.kind}")
        self.given_class_weights  # noqa: B018 (raises)

    @property
    def given_class_weights(self) -> tuple[float, ...]:
        """The numbers in `class_weights`, if it has any. Raises `UserError`."""
        if self.class_weights in ("none", "balanced"):
            return ()
        try:
            weights = tuple(float(x) for x in self.class_weights.split(","))
        except ValueError:
            weights = ()
        if not weights or not all(1e-16 <= w <= 1e16 for w in weights):  # the loss is in float32
            raise UserError(
                f"class_weights is {self.class_weights!r}; it must be none, balanced, or numbers"
                " above 0, from 1e-16 to 1e16, with commas between them"
            )
        return weights


def to_json(config: FinetuneConfig) -> dict[str, Any]:
    """A configuration as a JSON object; the task's kind is in `task.kind`."""
    return typed_json.to_json(config) | {"task": task_json(config.task)}


def task_json(task: Task) -> dict[str, Any]:
    """A task as a JSON object with its `kind`."""
    return {"kind": task.kind} | typed_json.to_json(task)


def from_json(value: Any, where: str = "config") -> FinetuneConfig:
    """A configuration from JSON; strict about names and types. Raises `UserError`."""
    task = value.get("task") if isinstance(value, Mapping) else None
    if not isinstance(task, Mapping) or "kind" not in task:
        raise UserError(f"{where}: task.kind is missing; it is one of {', '.join(TASKS)}")
    loaded = task_from_json(task, f"{where}.task")
    rest = {key: x for key, x in value.items() if key != "task"}
    return typed_json.from_json(FinetuneConfig, rest, where, {"task": loaded})


def task_from_json(value: Mapping[str, Any], where: str = "task") -> Task:
    """A task from JSON with its `kind`. Raises `UserError`."""
    kind = value.get("kind")
    if not isinstance(kind, str) or kind not in TASKS:
        raise UserError(f"{where}.kind is {kind!r}; {did_you_mean(str(kind), TASKS)}")
    options = {key: x for key, x in value.items() if key != "kind"}
    return typed_json.from_json(TASKS[kind], options, where)

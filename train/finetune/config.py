"""The configuration of a fine-tuning run."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from modernbert_jax.config import Runtime
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io import typed_json
from modernbert_jax.sharding import MeshShape

from ..engine.lora import Lora
from ..tasks import TASKS, Task
from .intermediate import Intermediate


@dataclasses.dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """A fine-tuning run: a model, a task with its data, and how the one learns the other."""

    task: Task
    """What is to be learned, and the columns of the data."""
    model: str = "answerdotai/ModernBERT-base"
    """Checkpoint to start from, in any format, or the name of a model on the hub."""
    intermediate: Intermediate = dataclasses.field(default_factory=Intermediate)
    """A run to be done first, whose model this one then starts from."""
    init: Literal["checkpoint", "random"] = "checkpoint"
    """`random` takes only architecture and tokenizer of `model`: what pretraining is worth."""
    train: str = ""
    """Labelled examples: .jsonl, .csv, .tsv (also .gz, .zst), .parquet, .arrow, or a folder of
    `datasets`."""
    validation: str = ""
    """The same, for choosing the best model; without it `validation_split` of `train` is used."""
    test: str = ""
    """The same, measured once with the best model at the end."""
    validation_split: float = 0.1
    """Share of `train` that is kept apart where `validation` is empty, alike in every label."""
    output: str = "finetuned"
    """Folder of the run. The same command in the same folder goes on where it stopped."""

    epochs: float = 3.0
    batch_examples: int = 32
    """Examples of an update, over all devices."""
    microbatch_tokens: int = 8192
    """Tokens, over all devices, whose gradients are in memory at once. The loss is that of the
    whole batch all the same."""
    learning_rate: float = 5e-5
    """The highest of the schedule."""
    warmup: float = 0.1
    """Share of the updates over which the learning rate rises."""
    schedule: Literal["linear", "cosine", "one_minus_sqrt", "constant"] = "linear"
    """How the learning rate falls to zero after that."""
    optimizer: Literal["stable_adamw", "adamw"] = "stable_adamw"
    weight_decay: float = 1e-5
    """stable_adamw: share of a weight that an update at the highest learning rate takes off it.
    adamw: that share divided by the learning rate, as in PyTorch."""
    b1: float = 0.9
    b2: float = 0.98
    eps: float = 1e-6
    clip_norm: float = 0.0
    """Longer gradients are shortened to this; 0 is never. transformers' Trainer has 1.0."""
    pooling: Literal["model", "cls", "mean", "max"] = "model"
    """From a document's tokens to one vector; `model` is the checkpoint's own way. transformers has
    no `max`."""
    attention_dropout: float = 0.1
    """In training only, after each attention's output projection, as in ModernBERT's research code;
    0 is what transformers does."""
    embedding_dropout: float = 0.0
    mlp_dropout: float = 0.0
    classifier_dropout: float = 0.0
    label_smoothing: float = 0.0
    """Share of the probability that goes to all classes alike."""
    class_weights: str = "none"
    """Of each class in the loss: `none`, `balanced` (examples / (classes x examples of the class)),
    or numbers with commas between them, in the order of the labels. In a multi-label task they are
    those of positives, balanced negatives / positives."""

    layer_decay: float = 1.0
    """What the learning rate is multiplied with for every layer that is further from the head."""
    freeze: tuple[str, ...] = ()
    """Regular expressions, found in names of tensors (`model.layers.3.attn.Wqkv.weight`), of what
    is not trained."""
    freeze_layers: int = 0
    """The embeddings and so many first layers are not trained either."""
    lora: Lora = dataclasses.field(default_factory=Lora)
    """Adapters that are trained instead of the encoder, and merged for the export."""

    eval_every: float = 1.0
    """Epochs between evaluations; also at the end."""
    patience: int = 0
    """Evaluations without a better score after which training ends; 0 is never."""
    min_delta: float = 0.0
    """By how much a score has to be better to count for `patience`."""
    keep_best: bool = True
    """Whether the model of the best evaluation is exported, or else the last one."""
    save_every: int = 500
    """Updates between checkpoints; one is also made on a stop."""
    keep: int = 2
    """The newest checkpoints, which stay on disk."""
    log_every: int = 10
    """Updates between rows of metrics."""
    spike_deviations: float = 0.0
    """An update is skipped when its loss is so many standard deviations above its running mean; 0
    accepts any loss that is finite."""
    skip_limit: int = 20
    """Updates skipped one after another at which the run stops."""
    seed: int = 17
    """Of the new parameters, the order of examples, and dropout."""
    runtime: Runtime = dataclasses.field(default_factory=Runtime)
    mesh: MeshShape = dataclasses.field(default_factory=MeshShape)
    """How the devices share the work. A run may be resumed on another mesh."""
    wandb_project: str = ""
    """Project of Weights & Biases that gets the metrics too; needs the extra `wandb`."""

    def __post_init__(self):
        for name in (
            "epochs",
            "batch_examples",
            "microbatch_tokens",
            "learning_rate",
            "eval_every",
        ):
            self._require(name, 0 < getattr(self, name) < math.inf, "more than 0")
        for name in ("save_every", "keep", "log_every", "skip_limit"):
            self._require(name, getattr(self, name) >= 1, "1 or more")
        for name in ("weight_decay", "clip_norm", "patience", "min_delta", "spike_deviations"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in (
            "attention_dropout",
            "embedding_dropout",
            "mlp_dropout",
            "classifier_dropout",
            "label_smoothing",
            "b1",
            "b2",
        ):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("seed", 0 <= self.seed < 2**32, "0 or more, and below 2^32")
        self._require("warmup", 0 <= self.warmup <= 1, "between 0 and 1")
        self._require("validation_split", 0 <= self.validation_split < 1, "between 0 and 1")
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
            found = tuple(float(x) for x in self.class_weights.split(","))
        except ValueError:
            found = ()
        if not found or not all(0 < w < math.inf for w in found):
            raise UserError(
                f"class_weights is {self.class_weights!r}; it must be none, balanced, or numbers"
                " above 0 with commas between them"
            )
        return found

    def _require(self, name: str, ok: bool, what: str) -> None:
        if not ok:
            raise UserError(f"{name} is {getattr(self, name)}; it must be {what}")


def to_json(config: FinetuneConfig) -> dict[str, Any]:
    """A configuration as a JSON object; the task's kind stands in `task.kind`."""
    return typed_json.to_json(config) | {"task": task_json(config.task)}


def task_json(task: Task) -> dict[str, Any]:
    """A task as a JSON object with its `kind`."""
    return {"kind": task.kind} | typed_json.to_json(task)


def from_json(value: Any, where: str = "config") -> FinetuneConfig:
    """A configuration from JSON; strict about names and types. Raises `UserError`."""
    task = value.get("task") if isinstance(value, Mapping) else None
    if not isinstance(task, Mapping) or "kind" not in task:
        raise UserError(f"{where}: task.kind is missing; it is one of {', '.join(TASKS)}")
    made = task_from_json(task, f"{where}.task")
    rest = {key: x for key, x in value.items() if key != "task"}
    return typed_json.from_json(FinetuneConfig, rest, where, {"task": made})


def task_from_json(value: Mapping[str, Any], where: str = "task") -> Task:
    """A task from JSON with its `kind`. Raises `UserError`."""
    kind = value.get("kind")
    if kind not in TASKS:
        raise UserError(f"{where}.kind is {kind!r}; {did_you_mean(str(kind), TASKS)}")
    options = {key: x for key, x in value.items() if key != "kind"}
    return typed_json.from_json(TASKS[kind], options, where)

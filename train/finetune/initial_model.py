"""Initial model of fine-tuning: an encoder, its head, and a classifier that may be new."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import Classifier
from modernbert_jax.io.hub import locate
from modernbert_jax.tokenizer import Tokenizer

from ..engine.objective import draw_params
from ..tasks import Task
from .config import FinetuneConfig

_OURS = ("id2label", "label2id", "num_labels", "problem_type", "task")
"""Keys of `config.json` that say what a classifier's outputs mean."""


class InitialModel(NamedTuple):
    """A model before it learns a task."""

    config: ModernBertConfig
    """As it will be exported."""
    params: Any
    """float32 numpy arrays, of `Classifier`."""
    tokenizer: Tokenizer
    files: Mapping[str, bytes]
    """Of the tokenizer, as they came."""
    extra: Mapping[str, Any]
    """Keys of `config.json` that mean nothing to the model."""
    new: tuple[str, ...]
    """Names of the tensors that start from random values."""


def load(config: FinetuneConfig) -> convert.Checkpoint:
    """The checkpoint that a run starts from. Raises `UserError`."""
    checkpoint = convert.load(locate(config.model))
    if checkpoint.tokenizer is None:
        raise UserError(f"{config.model}: has no tokenizer.json; put the model's beside it")
    known = names.heads(checkpoint.config)
    if config.task.head not in known:
        raise UserError(
            f"{config.model}: a decoder cannot learn {config.task.kind};"
            f" {did_you_mean(config.task.head, known)}"
        )
    if checkpoint.pipeline is not None and checkpoint.pipeline.projections:
        raise UserError(
            f"{config.model}: has dense layers behind the encoder, which a classifier would lose;"
            " start from the model that it was made from"
        )
    return checkpoint


def begin(config: FinetuneConfig, checkpoint: convert.Checkpoint, task: Task) -> InitialModel:
    """A classifier for the task, with all that the checkpoint has of it.

    Head and encoder are taken over; so is the classifier of a checkpoint that was fine-tuned for
    the same labels in the same order. The rest is drawn from the seed.
    """
    model = of_task(config, checkpoint.config)
    rows = names.table(model, task.head, task.outputs)
    shapes = names.shapes(rows)
    module = Classifier(model, config.runtime, task.outputs)
    fresh = draw_params(module, jax.random.key(config.seed))
    have = _usable(checkpoint, task) if config.init == "checkpoint" else {}
    params: dict[str, Any] = {}
    for path, leaf in names.flatten(fresh).items():
        found = have.get(path)
        if found is not None and found.shape != shapes[path]:
            found = None
        names.put(params, path, leaf if found is None else np.asarray(found, np.float32))
    new = tuple(name for name, row in rows.items() if row.path not in have)
    extra = {k: v for k, v in checkpoint.extra.items() if k not in _OURS}
    # Modules of an embedding model would be stale: only what belongs to the tokenizer goes along.
    files = {k: v for k, v in checkpoint.files.items() if k in convert.huggingface.CARRIED}
    return InitialModel(model, params, checkpoint.tokenizer, files, extra, new)


def of_task(config: FinetuneConfig, model: ModernBertConfig) -> ModernBertConfig:
    """The architecture as it is exported: pooling and the classifier's dropout are the run's."""
    pooling = model.classifier_pooling if config.pooling == "model" else config.pooling
    return dataclasses.replace(
        model, classifier_pooling=pooling, classifier_dropout=config.classifier_dropout
    )


def labels_json(task: Task) -> dict[str, Any]:
    """What `config.json` says of a classifier's outputs."""
    found: dict[str, Any] = {}
    names_ = task.label_names or tuple(f"LABEL_{i}" for i in range(task.outputs))
    if task.head != "multiple_choice":
        found["id2label"] = {str(i): name for i, name in enumerate(names_)}
        found["label2id"] = {name: i for i, name in enumerate(names_)}
    if task.problem_type:
        found["problem_type"] = task.problem_type
    return found


def _usable(checkpoint: convert.Checkpoint, task: Task) -> dict[tuple[str, ...], np.ndarray]:
    """The checkpoint's parameters by path, but for a classifier of other labels."""
    params = checkpoint.params if checkpoint.head != "none" else {"encoder": checkpoint.params}
    found = names.flatten(params)
    same = checkpoint.head == task.head and checkpoint.labels == task.outputs
    if same and task.label_names and task.head != "multiple_choice":
        theirs = checkpoint.extra.get("id2label")
        ours = labels_json(task)["id2label"]
        same = theirs is None or {str(k): v for k, v in theirs.items()} == ours
    if not same:
        found = {path: x for path, x in found.items() if path[0] != "classifier"}
    return found

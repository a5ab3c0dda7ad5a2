"""Initial model of a fine-tuning run: encoder, head and classifier."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from modernbert_jax import alignment, convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import Classifier
from modernbert_jax.tokenizer import Tokenizer

from ..engine.objective import draw_params
from ..tasks import Task
from .config import FinetuneConfig

_OURS = ("id2label", "label2id", "num_labels", "problem_type", "task")
"""Keys of `config.json` that describe a classifier's outputs."""


class InitialModel(NamedTuple):
    """A model before fine-tuning."""

    config: ModernBertConfig
    """Architecture, as exported."""
    params: Any
    """Parameters of `Classifier`, float32 numpy arrays."""
    tokenizer: Tokenizer
    """The checkpoint's tokenizer."""
    files: Mapping[str, bytes]
    """Files of the tokenizer by name, unchanged."""
    extra: Mapping[str, Any]
    """Keys of `config.json` that do not concern the architecture."""
    new: tuple[str, ...]
    """Names of the tensors that start from random values."""


def load(config: FinetuneConfig) -> convert.Checkpoint:
    """Load the checkpoint that a run starts from.

    Raises:
        UserError: a checkpoint that cannot be read, or does not suit the task.
    """
    checkpoint = convert.load(convert.locate(config.model))
    checkpoint.need_tokenizer(config.model)
    known = names.heads(checkpoint.config)
    if config.task.head not in known:
        raise UserError(
            f"{config.model}: a decoder cannot learn {config.task.kind};"
            f" {did_you_mean(config.task.head, known)}"
        )
    if checkpoint.pipeline is not None and checkpoint.pipeline.layers:
        raise UserError(
            f"{config.model}: has dense layers after the encoder, which a classifier would lose;"
            " start from its base model"
        )
    if config.task.spaced:
        files = {**checkpoint.files, **alignment.spaced(checkpoint.tokenizer).files}
        checkpoint = dataclasses.replace(checkpoint, files=files)
    return checkpoint


def fitted(task: Task, model: ModernBertConfig) -> Task:
    """The task with sequences that the model supports: a default `max_length` is lowered.

    Raises:
        UserError: another `max_length` than the default is longer than the model supports.
    """
    most = model.max_position_embeddings
    if task.max_length <= most:
        return task
    if task.max_length == type(task).max_length:
        return task.shortened(most)
    raise UserError(
        f"task.max_length is {task.max_length:,}; the model supports {most:,} tokens at most"
    )


def begin(config: FinetuneConfig, checkpoint: convert.Checkpoint, task: Task) -> InitialModel:
    """Build the classifier of a task from a checkpoint.

    Encoder and head are taken from the checkpoint, and so is a classifier for the same labels in
    the same order. All other parameters are drawn with the seed.
    """
    model = of_task(config, checkpoint.config)
    rows = names.table(model, task.head, task.outputs)
    shapes = names.shapes(rows)
    module = Classifier(model, config.runtime, task.outputs)
    fresh = draw_params(module, jax.random.key(config.seed))
    usable = _usable(checkpoint, task) if config.init == "checkpoint" else {}
    params: dict[str, Any] = {}
    for path, leaf in names.flatten(fresh).items():
        old = usable.get(path)
        if old is not None and old.shape != shapes[path]:
            old = None
        names.put(params, path, leaf if old is None else np.asarray(old, np.float32))
    new = tuple(name for name, row in rows.items() if row.path not in usable)
    extra = {k: v for k, v in checkpoint.extra.items() if k not in _OURS}
    # Only files of the tokenizer are carried over: modules of an embedding model would be stale.
    files = {k: v for k, v in checkpoint.files.items() if k in convert.huggingface.CARRIED}
    tokenizer = checkpoint.need_tokenizer(config.model)
    return InitialModel(model, params, tokenizer, files, extra, new)


def of_task(config: FinetuneConfig, model: ModernBertConfig) -> ModernBertConfig:
    """Return the architecture as exported, with the run's pooling and classifier dropout."""
    pooling = model.classifier_pooling if config.pooling == "model" else config.pooling
    return dataclasses.replace(
        model, classifier_pooling=pooling, classifier_dropout=config.classifier_dropout
    )


def labels_json(task: Task) -> dict[str, Any]:
    """Return the keys of `config.json` that describe a classifier's outputs."""
    keys: dict[str, Any] = {}
    names_ = task.label_names or tuple(f"LABEL_{i}" for i in range(task.outputs))
    if task.head != "multiple_choice":
        keys["id2label"] = {str(i): name for i, name in enumerate(names_)}
        keys["label2id"] = {name: i for i, name in enumerate(names_)}
    if task.problem_type:
        keys["problem_type"] = task.problem_type
    return keys


def _usable(checkpoint: convert.Checkpoint, task: Task) -> dict[tuple[str, ...], np.ndarray]:
    """Return the checkpoint's parameters by path, without a classifier for other labels."""
    params = checkpoint.params if checkpoint.head != "none" else {"encoder": checkpoint.params}
    leaves = names.flatten(params)
    same = checkpoint.head == task.head and checkpoint.labels == task.outputs
    if same and task.label_names and task.head != "multiple_choice":
        theirs = checkpoint.label_names if checkpoint.extra.get("id2label") else None
        same = theirs in (None, tuple(labels_json(task)["id2label"].values()))
    if not same:
        leaves = {path: x for path, x in leaves.items() if path[0] != "classifier"}
    return leaves

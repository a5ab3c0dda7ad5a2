"""Metrics and predictions of a fine-tuned model, from a checkpoint and files of examples."""

import dataclasses
import os
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modernbert_jax import convert, devices
from modernbert_jax.config import Dtype, Runtime
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.inference import shapes
from modernbert_jax.io import files
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.quantization import Weights
from modernbert_jax.sharding import check_mesh, placed

from .. import engine
from ..examples.run import finite, json_lines
from ..tasks import TASKS, Example, Task, read
from . import losses
from .config import FinetuneConfig, task_from_json
from .infer import Predictions
from .initial_model import fitted
from .objective import TaskObjective
from .run import TASK
from .session import Predictor, evaluation_shape


def evaluate(
    model: str,
    data: str,
    kind: str | None = None,
    options: Sequence[str] = (),
    output: Path | None = None,
    batch_tokens: int = 8192,
    dtype: Dtype = "float32",
    weights: Weights = "float32",
) -> dict[str, Any]:
    """Every metric of a model on labelled examples, with "task", "loss" and "examples".

    Args:
        model: directory of a checkpoint, or its name on the hub.
        data: file or folder of labelled examples.
        kind: task, a key of `TASKS`; None is the one that the model was fine-tuned for here.
        options: fields of the task as NAME=VALUE.
        output: new file or stream for the predictions as JSON lines, or None.
        batch_tokens: tokens of a batch.
        dtype: dtype of the computation.
        weights: type in which matrices are kept in memory; see `quantization`.

    Raises:
        UserError: an output that cannot be written, a model without a classifier for the task, or
            bad data.
    """
    with files.output(output or os.devnull, [model, data]) as write:
        task, examples, predictions = run_model(
            model, data, kind, options, batch_tokens, dtype, weights, labelled=True
        )
        if output is not None:
            write(json_lines(task.predictions(examples, predictions.outputs)))
    metrics = task.metrics(examples, predictions.outputs)
    loss = finite({"loss": predictions.loss, **metrics})
    return {"task": task.kind, "examples": len(examples), **loss}


def predict(
    model: str,
    data: str,
    output: Path,
    kind: str | None = None,
    options: Sequence[str] = (),
    batch_tokens: int = 8192,
    dtype: Dtype = "float32",
    weights: Weights = "float32",
) -> int:
    """Write the predictions for examples as JSON lines; returns their number. As `evaluate`.

    `output` is a new file or a stream; see `modernbert_jax.io.outputs`.
    """
    with files.output(output, [model, data]) as write:
        task, examples, predictions = run_model(
            model, data, kind, options, batch_tokens, dtype, weights, labelled=False
        )
        rows = task.predictions(examples, predictions.outputs)
        write(json_lines(rows))
    return len(rows)


def run_model(
    model: str,
    data: str,
    kind: str | None = None,
    options: Sequence[str] = (),
    batch_tokens: int = 8192,
    dtype: Dtype = "float32",
    weights: Weights = "float32",
    labelled: bool = True,
) -> tuple[Task, list[Example], Predictions]:
    """Task of a model, the examples in a file, and predictions for them.

    All devices of this process divide the rows of a batch among them. Arguments as `evaluate`.
    """
    folder = convert.locate(model)
    checkpoint = convert.load(folder)
    tokenizer = checkpoint.need_tokenizer(model)
    task = fitted(task_of(folder, checkpoint, kind, options), checkpoint.config)
    examples = task.examples(read([data]), tokenizer, labelled)
    mesh = devices.local_mesh()
    with jax.set_mesh(mesh):
        engine.use_compile_cache()
        loss = losses.of_task(task, shapes.DOCUMENTS)
        pieces = check_mesh(mesh, checkpoint.config.num_attention_heads)
        shape = evaluation_shape(examples, batch_tokens * pieces[0], pieces, loss.grouped)
        config = FinetuneConfig(task=task, runtime=Runtime(dtype=dtype))
        objective = TaskObjective(config, checkpoint.config, task.outputs, loss, shape.documents)
        params = placed(checkpoint.params, mesh, weights)
        predictions = Predictor(objective, shape, mesh)(params, examples)
    if not all(np.isfinite(x).all() for logits in predictions.outputs for x in logits):
        raise UserError(f"{model}: gives scores that are NaN or infinite; are its weights damaged?")
    return task, examples, predictions


def task_of(
    folder: Path, checkpoint: convert.Checkpoint, kind: str | None, options: Sequence[str]
) -> Task:
    """Task of a checkpoint: from its `task.json`, else with the labels of its config.

    Raises:
        UserError: no known task, or a model with another head or number of outputs.
    """
    stored: dict[str, Any] = {}
    if (folder / TASK).is_file():
        stored = read_json(folder / TASK)
    if kind is None and not stored:
        raise UserError(f"{folder}: does not say what it was fine-tuned for; name a --task")
    if kind is not None and stored.get("kind") != kind:
        stored = {"kind": kind}
    task_type = TASKS.get(str(stored.get("kind")))
    if task_type and checkpoint.head != task_type.head:
        raise UserError(
            f"{folder}: its head is {checkpoint.head}, and {task_type.kind} needs"
            f" {task_type.head}; fine-tune it with"
            f" `modernbert-jax finetune {task_type.kind} --model {folder}`"
        )
    fields = _options(task_type, options) if task_type else {}
    has_labels = "labels" in _fields(task_type)
    if (
        task_type
        and has_labels
        and task_type.head != "multiple_choice"
        and not stored.get("labels")
    ):
        fields = {"labels": list(checkpoint.label_names)} | fields
    task = task_from_json(stored | fields, str(folder / TASK))
    if checkpoint.labels != task.outputs:
        raise UserError(
            f"{folder}: has {checkpoint.labels} outputs, and {task.kind} needs {task.outputs};"
            " name its labels with --option labels=..."
        )
    return task


def _fields(kind: type[Task] | None) -> dict[str, Any]:
    return {f.name: f for f in dataclasses.fields(kind)} if kind else {}


def _options(kind: type[Task], options: Sequence[str]) -> dict[str, Any]:
    """Values of a task's fields from NAME=VALUE."""
    hints, values = typing.get_type_hints(kind), {}
    for option in options:
        name, equals, value = option.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in _fields(kind):
            raise UserError(
                f"--option {option!r}: must be NAME=VALUE; {did_you_mean(name, _fields(kind))}"
            )
        values[name] = _parsed(hints[name], value, option)
    return values


def _parsed(hint: Any, value: str, option: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        hint = next(a for a in typing.get_args(hint) if a is not type(None))
        origin = typing.get_origin(hint)
    if origin is tuple:
        of = typing.get_args(hint)[0]
        return [_parsed(of, x, option) for x in value.split(",")] if value else []
    try:
        if hint is bool:
            return {"true": True, "false": False}[value.lower()]
        return hint(value) if hint in (int, float) else value
    except (ValueError, KeyError):
        raise UserError(f"--option {option!r}: {value!r} is no {hint.__name__}") from None

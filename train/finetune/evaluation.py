"""What a fine-tuned model is worth, and what it says: from a checkpoint and files."""

import dataclasses
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from modernbert_jax import convert
from modernbert_jax.config import Runtime
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.files import read_json
from modernbert_jax.io.hub import locate
from modernbert_jax.sharding import MeshShape

from .. import engine
from ..tasks import TASKS, Example, Task, read
from . import losses, shapes
from .config import FinetuneConfig, task_from_json
from .infer import Said
from .objective import TaskObjective
from .run import TASK, finite, write_lines
from .session import Predictor, evaluation_shape


def evaluate(
    model: str,
    data: str,
    kind: str | None = None,
    options: Sequence[str] = (),
    output: Path | None = None,
    batch_tokens: int = 8192,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Every metric of a model on labelled examples, with "loss" and "examples".

    Raises:
        UserError: a model without a classifier for the task, or bad data.
    """
    task, examples, said = run_model(model, data, kind, options, batch_tokens, dtype, labelled=True)
    if output is not None:
        write_lines(output, task.predictions(examples, said.outputs))
    metrics = finite({"loss": said.loss, **task.metrics(examples, said.outputs)})
    return {"task": task.kind, "examples": len(examples), **metrics}


def predict(
    model: str,
    data: str,
    output: Path,
    kind: str | None = None,
    options: Sequence[str] = (),
    batch_tokens: int = 8192,
    dtype: str = "float32",
) -> int:
    """Writes what a model says of examples, a JSON line each; returns how many. As `evaluate`."""
    task, examples, said = run_model(
        model, data, kind, options, batch_tokens, dtype, labelled=False
    )
    rows = task.predictions(examples, said.outputs)
    write_lines(output, rows)
    return len(rows)


def run_model(
    model: str,
    data: str,
    kind: str | None = None,
    options: Sequence[str] = (),
    batch_tokens: int = 8192,
    dtype: str = "float32",
    labelled: bool = True,
) -> tuple[Task, list[Example], Said]:
    """What a model is for, the examples in a file, and what it says of them."""
    folder = locate(model)
    checkpoint = convert.load(folder)
    if checkpoint.tokenizer is None:
        raise UserError(f"{model}: has no tokenizer.json; put the model's beside it")
    task = task_of(folder, checkpoint, kind, options)
    examples = task.examples(read([data]), checkpoint.tokenizer, labelled)
    mesh = MeshShape().make(jax.local_devices()[:1])
    with jax.set_mesh(mesh):
        engine.use_compile_cache()
        loss = losses.of_task(task, shapes.DOCUMENTS)
        shape = evaluation_shape(examples, batch_tokens, (1, 1), loss.grouped)
        config = FinetuneConfig(task=task, runtime=Runtime(dtype=dtype))
        objective = TaskObjective(config, checkpoint.config, task.outputs, loss, shape.documents)
        params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), checkpoint.params)
        return task, examples, Predictor(objective, shape, mesh)(params, examples)


def task_of(
    folder: Path, checkpoint: convert.Checkpoint, kind: str | None, options: Sequence[str]
) -> Task:
    """What a checkpoint was made for.

    Fine-tuned here, it says so itself; else labels come from its config. Raises `UserError`.
    """
    told: dict[str, Any] = {}
    if (folder / TASK).is_file():
        told = read_json(folder / TASK)
    if kind is None and not told:
        raise UserError(f"{folder}: does not say what it was fine-tuned for; name a --task")
    if kind is not None and told.get("kind") != kind:
        told = {"kind": kind}
    made = TASKS.get(told.get("kind"))
    if made and checkpoint.head != made.head:
        raise UserError(
            f"{folder}: its head is {checkpoint.head}, and {made.kind} needs {made.head}; fine-tune"
            f" it with `modernbert-jax finetune {made.kind} --model {folder}`"
        )
    given = _options(made, options) if made else {}
    if "labels" in _fields(made) and made.head != "multiple_choice" and not told.get("labels"):
        names = checkpoint.extra.get("id2label") or {}
        given = {"labels": [names[key] for key in sorted(names, key=int)]} | given
    task = task_from_json(told | given, str(folder / TASK))
    if checkpoint.labels != task.outputs:
        raise UserError(
            f"{folder}: has {checkpoint.labels} outputs, and {task.kind} needs {task.outputs};"
            " name its labels with --option labels=..."
        )
    return task


def _fields(kind: type[Task] | None) -> dict[str, Any]:
    return {f.name: f for f in dataclasses.fields(kind)} if kind else {}


def _options(kind: type[Task], options: Sequence[str]) -> dict[str, Any]:
    """NAME=VALUE as JSON for a task's fields."""
    hints, found = typing.get_type_hints(kind), {}
    for option in options:
        name, equals, value = option.partition("=")
        name = name.replace("-", "_")
        if not equals or name not in _fields(kind):
            raise UserError(
                f"--option {option!r}: must be NAME=VALUE; {did_you_mean(name, _fields(kind))}"
            )
        found[name] = _parsed(hints[name], value, option)
    return found


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

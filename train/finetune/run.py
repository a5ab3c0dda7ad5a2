"""The folder of a fine-tuning run, and the files in it that other runs do not have."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.io.files import write_bytes

from .. import engine
from ..examples import card
from ..examples import run as examples_run
from ..examples.run import json_lines
from ..tasks import Task
from .config import FinetuneConfig, from_json, task_json, to_json
from .initial_model import labels_json

TASK = "task.json"
"""File of an exported model with the task: columns, labels and thresholds."""

DATA = ("train", "validation", "test")
"""Fields of the configuration that name files of examples."""


def inputs_of(config: FinetuneConfig, checkpoint: convert.Checkpoint) -> dict[str, Any]:
    """What the examples, the base model and its tokenizer are, by name."""
    data = {name: [getattr(config, name)] for name in DATA if getattr(config, name)}
    return examples_run.inputs_of(checkpoint, data)


def available_inputs(config: FinetuneConfig) -> dict[str, Any]:
    """What the inputs are; nothing where some are gone, which a finished run allows."""
    try:
        return inputs_of(config, convert.load(convert.locate(config.model), later=True))
    except UserError:
        return {}


def folder_of(config: FinetuneConfig, inputs: Mapping[str, Any]) -> engine.RunFolder:
    """The folder of a run whose labels are known.

    Args:
        config: the run.
        inputs: what its inputs are; see `inputs_of`.
    """
    path = Path(config.output)
    return engine.RunFolder(
        path, to_json(config), config.FREE, lambda before: to_json(from_json(before)), inputs
    )


def write_predictions(
    folder: engine.RunFolder, name: str, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write `predictions/NAME.jsonl`, from process 0."""
    if jax.process_index() == 0:
        write_bytes(folder.path / "predictions" / f"{name}.jsonl", json_lines(rows))


def exported(
    model: ModernBertConfig,
    params: Any,
    task: Task,
    files: Mapping[str, bytes],
    extra: Mapping[str, Any],
    card_text: str,
) -> convert.Checkpoint:
    """Build a checkpoint that tells its task, here (`task.json`) and to transformers.

    Args:
        model: the architecture.
        params: of `Classifier`.
        task: with its labels.
        files: of the tokenizer.
        extra: keys of `config.json` that mean nothing to the model.
        card_text: its README.md.
    """
    files = {**files, TASK: _json(task_json(task)), card.NAME: card_text.encode()}
    return convert.Checkpoint(
        config=model,
        params=params,
        head=task.head,
        files=files,
        extra={**extra, **labels_json(task)},
    )


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()

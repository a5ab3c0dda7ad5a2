"""A fine-tuning run's folder: what may start in it, and what it leaves behind."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError
from modernbert_jax.io.files import read_json, whole_file, write_json
from modernbert_jax.io.typed_json import differences

from ..engine import peft
from ..pretrain.run import claim, together, whole
from ..tasks import Task
from . import card
from .config import FinetuneConfig, task_json, to_json
from .session import Session
from .start import Start, labels_json

TASK = "task.json"
"""Beside an exported model: the task with its columns, labels and thresholds."""

RESULT = "result.json"

_FREE = ("output", "mesh", "keep", "log_every", "save_every", "skip_limit", "wandb_project")
"""Keys that may change between a run and its resumption: they leave its results alone."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A configuration with its folder."""

    config: FinetuneConfig
    """With the labels that the data have."""

    @classmethod
    def of(cls, config: FinetuneConfig, task: Task) -> "Run":
        """The run of a task whose labels are known. Raises `UserError` for a folder of another."""
        run = cls(dataclasses.replace(config, task=task))
        run._check_folder()
        return run

    @property
    def folder(self) -> Path:
        """Where everything of the run lies."""
        return Path(self.config.output)

    @property
    def export_folder(self) -> Path:
        """Where the finished model lies, as a Hugging Face directory."""
        return self.folder / "export"

    def result(self) -> dict[str, Any] | None:
        """What the run has found, if it is finished."""
        path = self.folder / RESULT
        return read_json(path) if path.exists() else None

    def claim(self, start: Start) -> None:
        """Writes the resolved configuration and the tokenizer."""
        claim(self.folder, to_json(self.config), start.tokenizer)

    def metadata(self, session: Session, start: Start) -> dict[str, Any]:
        """What a checkpoint has to know to be a model of its own."""
        task = session.data.task
        return {
            "config": to_json(self.config),
            "model": session.model.to_hf(),
            "head": task.head,
            "extra": labels_json(task) | {"num_labels": task.outputs},
        }

    def export(
        self,
        session: Session,
        start: Start,
        params: Any,
        task: Task,
        result: Mapping[str, Any],
    ) -> None:
        """Writes the model with its labels, its card and its task, and then the result."""
        text = card.text(self.config, task, session, result)
        made = exported(session.model, params, task, start.files, start.extra, text)
        if jax.process_index() == 0:
            if not self.export_folder.exists():
                convert.save(made, self.export_folder, "hf")
            write_json(self.folder / RESULT, dict(result))
        together("exported")

    def export_adapters(self, session: Session, trained: Any) -> None:
        """Writes what was trained alone, too, as PEFT has it; nothing without adapters."""
        adapters, task = session.learner.partition.adapters, session.data.task
        if adapters is None:
            return
        trained, folder = whole(trained, session.mesh), self.folder / "adapter"
        if jax.process_index() == 0 and not folder.exists():
            rows = names.table(session.model, task.head, task.outputs)
            peft.save(folder, adapters, trained, rows, task.head, self.config.model)

    def write_predictions(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes `predictions/NAME.jsonl`."""
        if jax.process_index() == 0:
            write_lines(self.folder / "predictions" / f"{name}.jsonl", rows)

    def differences(self) -> list[str]:
        """What the folder's configuration has otherwise, but for what leaves results alone."""
        found = differences(read_json(self.folder / "config.json"), to_json(self.config))
        return [d for d in found if d.split(":")[0].split(".")[0] not in _FREE]

    def _check_folder(self) -> None:
        path = self.folder / "config.json"
        if path.exists():
            if found := self.differences():
                raise UserError(
                    f"{self.folder}: holds a run with another configuration ({'; '.join(found)});"
                    " choose another --output"
                )
        elif self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(
                f"{self.folder}: not empty and not a run; choose another --output or empty it"
            )


def exported(
    model: ModernBertConfig,
    params: Any,
    task: Task,
    files: Mapping[str, bytes],
    extra: Mapping[str, Any],
    card_text: str,
) -> convert.Checkpoint:
    """A model that says what it was fine-tuned for, here (`task.json`) and to transformers.

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


def write_lines(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Replaces a file by JSON lines, at once."""
    Path(path).absolute().parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def finite(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """JSON has no other word than null for what is not finite."""
    return {k: None if x is None or not math.isfinite(x) else float(x) for k, x in metrics.items()}


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()

"""Predictions of a fine-tuned model with names: labels, entities and answers, one dict each."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.heads import HEADS
from modernbert_jax.inference.runner import Document
from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.train.finetune import evaluation, initial_model, run
from modernbert_jax.train.tasks import Example, Record, Records, Task

_KINDS = {
    "token_classification": "tokens",
    "question_answering": "questions",
    "multiple_choice": "choice",
}
"""Kind of task by head, where the model does not say it; sequence classification has several."""

Runner = Callable[[str, list[Document]], Any]
"""Function of a program's name and documents; returns their logits, in order."""


def task_of(
    folder: Path | None,
    checkpoint: convert.Checkpoint,
    kind: str | None = None,
    options: Sequence[str] = (),
) -> Task:
    """The task of a checkpoint: the one that it was fine-tuned for, or what its head implies.

    Args:
        folder: of the checkpoint; None if it is in memory only.
        checkpoint: the model, whose parameters are not read.
        kind: a key of `TASKS`; None is that of the model.
        options: fields of the task as NAME=VALUE.

    Raises:
        UserError: a model without a classifier, or of another task.
    """
    if HEADS[checkpoint.head].output in ("hidden", "vocabulary"):
        raise UserError(f"the model has no classifier (its head is {checkpoint.head!r})")
    stored = folder is not None and (folder / run.TASK).is_file()
    if kind is None and not stored:
        problem = checkpoint.extra.get("problem_type")
        several = problem == "multi_label_classification"
        one = "regression" if checkpoint.labels == 1 else "classification"
        kind = _KINDS.get(checkpoint.head, "multilabel" if several else one)
    task = evaluation.task_of(folder or Path("the model"), checkpoint, kind, options)
    return initial_model.fitted(task, checkpoint.config)


def of_records(
    task: Task, records: Iterable[Mapping[str, Any]], tokenizer: Tokenizer, runner: Runner
) -> list[dict[str, Any]]:
    """Predictions for records by column names, as `modernbert-jax predict` writes them.

    Raises:
        UserError: a record without the task's columns.
    """
    examples = examples_of(task, records, tokenizer)
    name = "logits" if task.level == "token" else "document_logits"
    outputs = outputs_of(examples, runner(name, documents_of(examples)))
    rows = task.predictions(examples, outputs)
    return [{key: value for key, value in row.items() if key != "id"} for row in rows]


def examples_of(
    task: Task, records: Iterable[Mapping[str, Any]], tokenizer: Tokenizer
) -> list[Example]:
    """Examples of records by column names. Raises `UserError` for one without the columns."""
    read = Records([Record(f"record:{i}", values) for i, values in enumerate(records)])
    return task.examples(read, tokenizer, labelled=False)


def documents_of(examples: Iterable[Example]) -> list[Document]:
    """The sequences of examples, one after another."""
    return [Document(s.tolist()) for example in examples for s in example.sequences]


def outputs_of(examples: Iterable[Example], logits: Iterable[np.ndarray]) -> list[list[np.ndarray]]:
    """Logits of `documents_of`, by example."""
    each = iter(logits)
    return [[np.asarray(next(each)) for _ in example.sequences] for example in examples]


def record_of(task: Task, texts: Sequence[str]) -> dict[str, Any]:
    """A record of a task from its texts in order: of a pair both, of a choice then its options.

    Raises:
        UserError: another number of texts than the task reads.
    """
    columns = task.inputs or (getattr(task, "text_column", "text"),)
    if task.kind == "choice" and len(columns) == 2 and len(texts) > 2:
        return {columns[0]: texts[0], columns[1]: list(texts[1:])}
    if len(texts) != len(columns) or any("{" in column for column in columns):
        raise UserError(
            f"the task reads {', '.join(columns)}; give {len(columns)} texts in this order"
            if not any("{" in column for column in columns)
            else f"the task reads {', '.join(columns)}; give records with these columns"
        )
    return dict(zip(columns, texts, strict=True))

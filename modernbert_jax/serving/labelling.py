"""Models that label tokens: how their task reads texts, and its entities, words and answers."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.pretrained import ModernBert

if TYPE_CHECKING:
    from modernbert_jax.train.tasks import Example, Task


@dataclasses.dataclass(frozen=True)
class Labelled:
    """A record with the logits of its tokens."""

    task: "Task"
    example: "Example"
    logits: Sequence[np.ndarray]

    def prediction(self) -> dict[str, Any]:
        """The prediction of the task; see docs/reference/tasks.md."""
        return self.task.predict(self.example, self.logits)


def entities(found: Labelled) -> Iterator[dict[str, Any]]:
    """Entities of a text; words with their labels, where labels are no entities."""
    prediction = found.prediction()
    if "entities" not in prediction:
        yield from words(found, "entity_group")
        return
    for entity in prediction["entities"]:
        yield {
            "entity_group": entity["label"],
            "score": entity["score"],
            "word": entity["text"],
            "start": entity["start"],
            "end": entity["end"],
        }


def words(found: Labelled, key: str = "entity") -> Iterator[dict[str, Any]]:
    """Words of a text, with their labels as `key`."""
    task: Any = found.task
    source: Any = found.example.source
    labels, scores = task.tags_of(found.example, found.logits)
    for label, score, word, (start, end) in zip(
        labels, scores, source.words, source.spans.tolist(), strict=True
    ):
        yield {key: label, "score": score, "word": word, "start": start, "end": end}


def task_of(bert: ModernBert, longest: int) -> "Task":
    """The task of a model that labels tokens, with windows of up to `longest` tokens.

    Raises:
        UserError: a model that was fine-tuned for something else.
    """
    try:
        task = bert.task()
    except UserError:
        if bert.head != "token_classification":
            raise
        task = bert.task("tokens", ["scheme=none"])  # its labels are no tags of entities
    return task.shortened(longest)


def changed(task: "Task", longest: int, changes: Mapping[str, Any]) -> "Task":
    """A task with other fields; windows that become shorter share less.

    Raises:
        UserError: fields that the task refuses.
    """
    own: Any = task
    length = changes.get("max_length", own.max_length)
    stride = {"stride": min(own.stride, length // 2)}
    return dataclasses.replace(own, **stride | dict(changes)).shortened(longest)

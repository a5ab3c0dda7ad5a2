"""What `ModernBert` does with a classifier: scores, labels, entities and answers."""

import abc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.heads import HEADS
from modernbert_jax.inference.inputs import Inputs
from modernbert_jax.inference.runner import BATCH_TOKENS, BatchRunner, Document
from modernbert_jax.inference.text_model import TextModel
from modernbert_jax.pipeline import Pipeline

if TYPE_CHECKING:
    from modernbert_jax.train.tasks import Task


class Classifying(abc.ABC):
    """The part of `ModernBert` for models with a classifier."""

    params: dict[str, Any]
    pipeline: Pipeline | None
    runner: BatchRunner
    _stored: convert.Checkpoint
    inputs: Inputs
    text_model: TextModel
    _folder: Path | None

    @abc.abstractmethod
    def _windows(
        self,
        name: str,
        documents: Iterable[Document],
        batch_tokens: int | None,
        stream: bool,
        **options: Any,
    ) -> Iterator[Any]:
        """Results of a program, by window of a stream or all at once."""

    @abc.abstractmethod
    def _need(self, head: str, what: str) -> None:
        """Raise `UserError` for a model with another head."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a classifier's outputs, in order; empty for models of other kinds."""
        output = HEADS[self._stored.head].output
        classifies = output not in ("hidden", "vocabulary", "choice")
        return self._stored.label_names if classifies else ()

    def predict(
        self,
        inputs: Sequence[Any],
        activation: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
    ) -> np.ndarray | list[np.ndarray]:
        """Predictions of the classifier for each text or pair of texts, in order.

        Args:
            inputs: texts or (first, second) pairs: (query, document) of a reranker, (question,
                context) of question answering. For multiple choice (text, [choice, ...]).
            activation: activation of the scores, a key of `pipeline.ACTIVATIONS`. None is a
                reranker's own; else the sigmoid for a single label, and nothing for several.
            max_length: in tokens; of a pair the longer text is cut first.
            batch_tokens: tokens of a batch on each device, at least one row; default 8,192.
            prompt_name: name of a reranker's prompt, the prefix of the first text of each pair;
                None is its default.

        Returns:
            Sequence classification or a reranker: float32 [n, labels], or [n] with a single label.
            Multiple choice: [choices_i] each. Token classification and question answering:
            [len_i, labels] each, one row for every token of `tokenizer.encode` or `encode_pairs`.

        Raises:
            UserError: a model without a classifier, or inputs of another form.
        """
        head = self._stored.head
        output = HEADS[head].output
        if output in ("hidden", "vocabulary") and not self.text_model.score_width:
            raise UserError(f"the model has no classifier (its head is {head!r})")
        if isinstance(inputs, str):
            raise UserError("inputs is a string; give a list of texts or pairs of texts")
        texts = inputs
        if output == "choice":
            texts = [(text, choice) for text, choices in inputs for choice in choices]
        if output not in ("token", "choice"):
            size = BATCH_TOKENS if batch_tokens is None else batch_tokens
            (scores,) = self.text_model.scores(
                self.params, texts, activation, max_length, size, prompt_name=prompt_name
            )
            return scores
        name = "logits" if output == "token" else "document_logits"
        documents = self.inputs.documents(texts, max_length)
        (scores,) = self._windows(name, documents, batch_tokens, stream=False)
        if output == "token":
            return list(scores)
        ends = np.cumsum([len(choices) for _, choices in inputs])
        return np.split(scores[:, 0], ends[:-1]) if len(inputs) else []

    def task(self, kind: str | None = None, options: Sequence[str] = ()) -> "Task":
        """The task of the model: the one that it was fine-tuned for, or what its head implies.

        Args:
            kind: a key of `train.tasks.TASKS`; None is that of the model.
            options: fields of the task as NAME=VALUE.

        Raises:
            UserError: a model without a classifier, or of another task.
        """
        from modernbert_jax import predictions  # which needs the training code

        return predictions.task_of(self._folder, self._stored, kind, options)

    def predictions(
        self, records: Sequence[Mapping[str, Any]], task: "Task | None" = None
    ) -> list[dict[str, Any]]:
        """Predictions with names, one dict for each record, as `modernbert-jax predict` writes.

        Args:
            records: objects with the columns of the task that the model was fine-tuned for, such
                as {"text": ...}; see docs/reference/tasks.md.
            task: how records are read; None is `task()`.

        Raises:
            UserError: a model without a classifier, or records without the task's columns.
        """
        from modernbert_jax import predictions

        task = self.task() if task is None else task
        return predictions.of_records(task, records, self.inputs.tokenizer, self._logits)

    def entities(self, texts: Sequence[str | Sequence[str]]) -> list[list[dict[str, Any]]]:
        """Entities of each text or list of words: label, place, text and score.

        Raises:
            UserError: a model that does not classify tokens into entities.
        """
        self._need("token_classification", "token classifier")
        if isinstance(texts, str):
            raise UserError("texts is a string; give a list of texts")
        records = [{"text": t} if isinstance(t, str) else {"tokens": [*t]} for t in texts]
        rows = self.predictions(records)
        if any("entities" not in row for row in rows):
            raise UserError("the model's labels are no entities; use predictions")
        return [row["entities"] for row in rows]

    def answer(self, question: str, context: str) -> dict[str, Any]:
        """The answer to a question in a text: answer, start, end and score; "" is no answer.

        Raises:
            UserError: a model that does not answer questions.
        """
        from modernbert_jax import predictions

        self._need("question_answering", "head for questions")
        task = self.task()
        return self.predictions([predictions.record_of(task, (question, context))], task)[0]

    def _logits(self, name: str, documents: list[Document]) -> Any:
        return self.runner.run(name, self.params, documents)

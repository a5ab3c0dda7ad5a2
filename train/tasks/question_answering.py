"""Extractive question answering: the span of a text that answers a question, if any does."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np

from modernbert_jax import alignment
from modernbert_jax.errors import UserError
from modernbert_jax.ranges import FLOAT32, Count, Length, Natural, Range
from modernbert_jax.tokenizer import Tokenizer

from . import spans, squad
from .example import Example
from .records import Problems, Record
from .task import Outputs, Task, softmax, targets


class Answer(NamedTuple):
    """A reference answer and its first character in the text."""

    text: str
    start: int


@dataclasses.dataclass(frozen=True)
class Passage:
    """Facts of a record for decoding and metrics."""

    context: str
    answers: tuple[Answer, ...] | None
    """Reference answers; None for unlabelled records."""
    spans: tuple[np.ndarray, ...] = ()
    """Characters of each token, int32 [tokens, 2] per window; -1 outside the text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionAnswering(Task):
    """A question and the text that answers it; long texts are read in overlapping windows.

    Targets are a tuple with the first and last token of the first answer in each window; (0, 0),
    which is [CLS], if the window does not hold it.
    """

    kind = "questions"
    head = "question_answering"
    level = "token"
    default_metric = "f1"
    outputs = 2
    label_names = ("start", "end")

    question_column: str = "question"
    """Column of the question."""
    context_column: str = "context"
    """Column of the text."""
    answers_column: str = "answers"
    """Column of the answers, {"text": [...], "answer_start": [...]} or a list of objects."""
    no_answer: bool = False
    """Whether texts may hold no answer, as in SQuAD 2.0."""
    max_length: Length = 384
    """Maximum tokens of a window, with the question and special tokens."""
    stride: Natural = 128
    """Tokens of the text that windows share."""
    n_best: Count = 20
    """Number of answers in predictions, which share the probability."""
    max_answer_length: Count = 30
    """Maximum tokens of an answer."""
    no_answer_threshold: Annotated[float, Range(-FLOAT32, FLOAT32, above=True, below=True)] = 0.0
    """Margin over the best answer's logits from which on the prediction is no answer."""

    def __post_init__(self):
        super().__post_init__()
        if self.stride >= self.max_length:
            raise UserError(
                f"stride is {self.stride}; it must be 0 or more and below max_length,"
                f" {self.max_length}"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.question_column, self.context_column)

    @property
    def answers(self) -> tuple[str, ...]:
        return (self.answers_column,)

    @property
    def metric_names(self) -> tuple[str, ...]:
        return squad.names(self.no_answer)

    def stratum(self, record: Record) -> str:
        return "answerable" if _answers(record, self.answers_column) else "unanswerable"

    # --- records to examples --------------------------------------------------------------------

    def parse(self, record: Record, labelled: bool) -> tuple[str, Passage]:
        question = record.text(self.question_column).lstrip()
        context = record.text(self.context_column)
        if not labelled:
            return question, Passage(context, None)
        answers = tuple(_answers(record, self.answers_column))
        if not answers and not self.no_answer:
            raise UserError("has no answer; if that is intended, set no_answer")
        for text, start in answers:
            actual = context[max(start, 0) : start + len(text)]
            if start < 0 or actual != text:
                raise UserError(f"answer {text!r} is not at character {start}, but {actual!r} is")
        return question, Passage(context, answers)

    def encode(
        self, ids: Sequence[str], places: Sequence[str], parsed: Sequence[Any], tokenizer: Tokenizer
    ) -> list[Example]:
        pairs = [(question, passage.context) for question, passage in parsed]
        windowed = alignment.windows(tokenizer, pairs, self.max_length, self.stride)
        problems, examples = Problems(), []
        for i, place, (_, passage), windows in zip(ids, places, parsed, windowed, strict=True):
            if not windows:
                problems.add(
                    place,
                    f"the question leaves no room for {self.stride + 1} tokens of the text"
                    f" within max_length {self.max_length}; shorten it, or raise max_length",
                )
                continue
            target = None
            if passage.answers is not None:
                target = tuple(_target(w.spans, passage.answers) for w in windows)
            source = dataclasses.replace(passage, spans=tuple(w.spans for w in windows))
            sequences = tuple(w.ids for w in windows)
            examples.append(Example(id=i, sequences=sequences, target=target, source=source))
        problems.check()
        return examples

    # --- outputs to metrics and predictions -----------------------------------------------------

    def metrics(self, examples: Sequence[Example], outputs: Outputs) -> dict[str, float]:
        answered = self._answered(examples, outputs)
        return squad.metrics(answered, self.no_answer_threshold, self.no_answer)

    def tuned(self, examples: Sequence[Example], outputs: Outputs) -> "QuestionAnswering":
        """The task with the threshold of best F1."""
        if not self.no_answer:
            return self
        _, threshold = squad.Scores(self._answered(examples, outputs), squad.f1).best()
        return dataclasses.replace(self, no_answer_threshold=threshold)

    def _answered(self, examples: Sequence[Example], outputs: Outputs) -> list[squad.Answered]:
        targets(examples)
        answered = []
        for example, logits in zip(examples, outputs, strict=True):
            candidates, null = self._candidates(example, logits)
            best = candidates[0] if candidates else spans.Candidate(0, 0, -np.inf)
            gold = [answer.text for answer in example.source.answers]
            text = example.source.context[best.start : best.stop]
            answered.append(squad.Answered(text, gold, null - best.score))
        return answered

    def _candidates(
        self, example: Example, logits: Sequence[np.ndarray]
    ) -> tuple[list[spans.Candidate], float]:
        """The best answers, and the score of no answer; -inf if there must be one."""
        source, longest = example.source, self.max_answer_length
        best = spans.best(logits, source.spans, source.context, self.n_best, longest)
        return best, spans.null_score(logits) if self.no_answer else -np.inf

    def predict(self, example: Example, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        candidates, null = self._candidates(example, logits)
        ranked = list(candidates)
        if self.no_answer or not ranked:
            ranked.append(spans.Candidate(0, 0, null))
        scores = np.array([c.score for c in ranked])
        chances = softmax(scores) if np.isfinite(scores).any() else np.ones(len(scores))
        listed = [
            {
                "text": example.source.context[c.start : c.stop],
                "start": c.start,
                "end": c.stop,
                "score": float(p),
            }
            for c, p in zip(ranked, chances, strict=True)
        ]
        is_null, prediction = not candidates, {}
        if self.no_answer and candidates:
            prediction["no_answer_score"] = float(null - candidates[0].score)
            is_null = prediction["no_answer_score"] > self.no_answer_threshold
        chosen = listed[-1] if is_null else listed[0]
        prediction["answer"] = chosen["text"]
        prediction |= {key: chosen[key] for key in ("start", "end", "score")}
        listed.sort(key=lambda candidate: -candidate["score"])
        return {**prediction, "candidates": listed}


def _target(borders: np.ndarray, answers: Sequence[Answer]) -> tuple[int, int]:
    """First and last token of the first answer, or (0, 0) if the window does not hold it."""
    inside = np.flatnonzero(borders[:, 0] >= 0)
    if not answers or not inside.size:
        return 0, 0
    start, stop = answers[0].start, answers[0].start + len(answers[0].text)
    starts, stops = borders[inside].T
    if starts[0] > start or stops[-1] < stop:
        return 0, 0
    # A character may be several tokens; all of them belong to the answer.
    first = np.searchsorted(stops, start, "right")
    last = np.searchsorted(starts, stop, "left") - 1
    return int(inside[first]), int(inside[last])


def _answers(record: Record, column: str) -> list[Answer]:
    """The record's answers; empty if it is marked impossible. Raises `UserError`."""
    value = record.get(column)
    if value is None or record.get("is_impossible") is True:
        return []
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise UserError(f"{column!r} must hold lists text and answer_start, equally long")
        value = [{"text": t, "answer_start": s} for t, s in zip(texts, starts, strict=True)]
    answers = []
    for item in value if isinstance(value, list) else [value]:
        fields = item if isinstance(item, Mapping) else {}
        text, start = fields.get("text"), fields.get("answer_start")
        if not isinstance(text, str) or type(start) is not int or not text.strip():
            raise UserError(f"{column!r} has {item!r}; it must have a text and its answer_start")
        answers.append(Answer(text, start))
    return answers

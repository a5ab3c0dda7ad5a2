"""Token classification: a label for every word, as for named entities or parts of speech."""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from modernbert_jax import alignment
from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Natural
from modernbert_jax.tokenizer import Tokenizer

from . import entities, labels, schemes, scores, tagged, windows
from .example import IGNORED, Example
from .labels import Labelled
from .records import Problems, Record, Records
from .task import Outputs, Task, softmax


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenClassification(Labelled, Task):
    """A label for each word, learned and predicted at its first token.

    Records hold words and tags; or a text, which is split as the tokenizer does, and entities as
    spans of characters. Long records are read in overlapping windows, and each word in the window
    with the most context around it. Targets are a tuple with int32 [tokens] for each window,
    `IGNORED` where there is nothing to learn.
    """

    kind = "tokens"
    head = "token_classification"
    level = "token"
    spaced = True
    inputs = ()
    """Words or a text: each record has one of the two columns."""

    words_column: str = "tokens"
    """Column of the list of words."""
    tags_column: str = "ner_tags"
    """Column of the list of tags, one per word."""
    text_column: str = "text"
    """Column of the text, for records without words; for others it adds spans of characters."""
    entities_column: str = "entities"
    """Column of the entities of records without words: objects with start, end and label."""
    labels: tuple[str, ...] = ()
    """Tags in the order of the outputs. By default those of the training data."""
    scheme: schemes.Name = "IOB2"
    """How tags write entities; "none" for other labels, such as parts of speech."""
    label_all_pieces: bool = False
    """Whether a word's later tokens are learned too: as I-TYPE after B-TYPE, else as the first."""
    stride: Natural = 64
    """Tokens that windows share."""

    def __post_init__(self):
        labels.check(self.labels, 2)
        for tag in self.labels:
            schemes.parse(tag, self.scheme)
        if not 0 <= self.stride <= self.max_length // 2:
            raise UserError(
                f"stride is {self.stride}; it must be between 0 and half of max_length,"
                f" {self.max_length // 2}"
            )
        super().__post_init__()

    @property
    def default_metric(self) -> str:
        return "accuracy" if self.scheme == "none" else "f1"

    @property
    def metric_names(self) -> tuple[str, ...]:
        if self.scheme == "none":
            return scores.LABEL_METRICS
        types = sorted({tag.type for tag in self._tags.values()} - {""})
        return (*entities.PLAIN, *entities.STRICT, *(f"f1_{kind}" for kind in types))

    @property
    def other_names(self) -> Mapping[str, str]:
        same = scores.SAME_AS_ACCURACY if self.scheme == "none" else ()
        return dict.fromkeys(same, "accuracy")

    @cached_property
    def _tags(self) -> dict[str, schemes.Tag]:
        return {name: schemes.parse(name, self.scheme) for name in self.labels}

    def with_labels(self, records: Records) -> "TokenClassification":
        if self.labels:
            return self
        if declared := records.names.get(self.tags_column):
            return dataclasses.replace(self, labels=declared)
        self.check_columns(records)
        problems, names = Problems(), set()
        for record in records:
            with problems.at(record.place):
                names |= self._tags_in(record)
        problems.check()
        if len(names) < 2:
            raise UserError(
                f"column {self.tags_column!r} of the training data has fewer than two tags; name"
                " the labels"
            )
        return dataclasses.replace(self, labels=labels.ordered(names, self.tags_column))

    def _tags_in(self, record: Record) -> set[str]:
        """The tags of a record, or all tags of the scheme for its entities."""
        if self._has_words(record) or self.scheme == "none":
            return {labels.found(tag) for tag in record.list(self.tags_column)}
        spans = tagged.spans_of(record, self.entities_column, record.text(self.text_column))
        tags = (schemes.all_tags(span.type, self.scheme) for span in spans)
        return {schemes.OUTSIDE}.union(*tags)

    # --- records to examples --------------------------------------------------------------------

    def _has_words(self, record: Record) -> bool:
        return record.get(self.words_column) is not None or record.get(self.text_column) is None

    def needed(self, present: Collection[str], labelled: bool) -> Iterable[str]:
        words = self.words_column in present or self.text_column not in present
        if words or (self.scheme == "none" and labelled):
            return [self.words_column, *([self.tags_column] if labelled else [])]
        return [self.text_column, *([self.entities_column] if labelled else [])]

    def parse(self, record: Record, labelled: bool) -> tagged.Tagged:
        if self._has_words(record):
            words, tags = tagged.words_of(record, self.words_column), None
            if labelled:
                tags = tagged.tags_of(record, self.tags_column, words, self._index, self.scheme)
            text = record.get(self.text_column)
            return tagged.Tagged(words, text if isinstance(text, str) else None, tags)
        text = record.text(self.text_column)
        if labelled and self.scheme == "none":
            record.need(self.words_column)
        spans = tagged.spans_of(record, self.entities_column, text) if labelled else None
        return tagged.Tagged(None, text, None, spans)

    def encode(
        self, ids: Sequence[str], places: Sequence[str], parsed: Sequence[Any], tokenizer: Tokenizer
    ) -> list[Example]:
        of_words = iter(alignment.words(tokenizer, [p.words for p in parsed if p.words]))
        of_texts = iter(alignment.pieces(tokenizer, [p.text for p in parsed if not p.words]))
        around = alignment.around(tokenizer)
        problems, examples = Problems(), []
        for i, place, record in zip(ids, places, parsed, strict=True):
            words, text, tags = record.words, record.text, record.tags
            if words:
                pieces, spans = next(of_words), tagged.located(words, text) if text else None
            else:
                pieces, spans = next(of_texts)
                words = tuple(text[a:b] for a, b in spans)
                if record.spans is not None:
                    with problems.at(place):
                        tags = tagged.tagged_words(text, record.spans, spans, self.scheme)
                        tags = tuple(self._index.names[self._index[tag]] for tag in tags)
            source = tagged.Words(words, tags, text, spans)
            examples.append(self._example(i, source, pieces, around))
        problems.check()
        return examples

    def _example(
        self,
        name: str,
        words: tagged.Words,
        pieces: alignment.Pieces,
        around: tuple[list[int], list[int]],
    ) -> Example:
        before, after = around
        room = self.max_length - len(before) - len(after)
        ranges = windows.cut(pieces.words, room, self.stride)
        places = windows.deepest(pieces, ranges, len(words.words))
        places[:, 1] += np.where(places[:, 0] >= 0, len(before), 0)
        sequences = tuple(
            np.array([*before, *pieces.ids[a:b], *after], np.int32) for a, b in ranges
        )
        target = None
        if words.tags is not None:
            target = tuple(np.full(len(s), IGNORED, np.int32) for s in sequences)
            for word, (tag, (j, at)) in enumerate(zip(words.tags, places, strict=True)):
                if j < 0:
                    continue
                target[j][at] = self._index[tag]
                if self.label_all_pieces:
                    a, b = ranges[j]
                    later = np.flatnonzero(pieces.words[a:b] == word)[1:] + len(before)
                    target[j][later] = self._inside(tag)
        source = dataclasses.replace(words, places=places)
        return Example(id=name, sequences=sequences, target=target, source=source)

    def _inside(self, tag: str) -> int:
        """Label of a word's later tokens: I for B, if there is one, as in transformers."""
        inner = f"I{tag[1:]}" if self.scheme != "none" and tag.startswith("B-") else tag
        return self._index[inner if inner in self._index.names else tag]

    # --- outputs to metrics and predictions -----------------------------------------------------

    def metrics(self, examples: Sequence[Example], outputs: Outputs) -> dict[str, float]:
        sides: tuple[list[Sequence[str]], list[Sequence[str]]] = ([], [])
        for example, logits in zip(examples, outputs, strict=True):
            if example.source.tags is None:
                raise UserError(f"{example.id}: has no tags to measure by")
            sides[0].append(example.source.tags)
            sides[1].append(self.tags_of(example, logits)[0])
        if self.scheme == "none":
            actual, predicted = (
                [self._index[tag] for tags in side for tag in tags] for side in sides
            )
            metrics = scores.label_metrics(actual, predicted, self.outputs)
        else:
            truths, guesses = (
                [[self._tags[tag] for tag in tags] for tags in side] for side in sides
            )
            metrics = entities.metrics(truths, guesses, self.scheme)
            metrics["accuracy"] = entities.accuracy(*sides)
        return {name: metrics.get(name, 0.0) for name in self.metric_names}

    def predict(self, example: Example, logits: Sequence[np.ndarray]) -> dict[str, Any]:
        (tags, chances), source = self.tags_of(example, logits), example.source
        prediction = {"words": [*source.words], "tags": tags}
        if self.scheme == "none":
            return prediction | {"scores": chances}
        described = [
            tagged.described(e, source, float(np.mean(chances[e.start : e.stop])))
            for e in schemes.lenient([self._tags[tag] for tag in tags])
        ]
        return prediction | {"entities": described}

    def tags_of(
        self, example: Example, logits: Sequence[np.ndarray]
    ) -> tuple[list[str], list[float]]:
        """The predicted tag of every word, and its probability; words without tokens are O."""
        outside = schemes.OUTSIDE if schemes.OUTSIDE in self.labels else self.labels[0]
        tags, chances = [], []
        probabilities = [softmax(x) for x in logits]
        for j, at in example.source.places:
            of_word = probabilities[j][at] if j >= 0 else None
            tags.append(outside if of_word is None else self.labels[int(of_word.argmax())])
            chances.append(0.0 if of_word is None else float(of_word.max()))
        return tags, chances

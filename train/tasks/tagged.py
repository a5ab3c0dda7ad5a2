"""Tagged words and texts with entities: read from records, checked, converted, written as JSON."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from modernbert_jax.errors import UserError

from . import labels, schemes
from .labels import Index
from .records import Record


class Span(NamedTuple):
    """An entity in a text: characters from `start` up to but not including `stop`."""

    type: str
    start: int
    stop: int


class Tagged(NamedTuple):
    """The words of a record and their labels. A text without words is split by the tokenizer."""

    words: tuple[str, ...] | None
    text: str | None
    tags: tuple[str, ...] | None = None
    """One tag per word."""
    spans: tuple[Span, ...] | None = None
    """Entities of a text without words, in order."""


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of an example, and the token that decides each."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    text: str | None
    """The record's text, if it has one."""
    spans: np.ndarray | None
    """Characters of each word in the text, int32 [words, 2]; None if it does not hold all words."""
    places: np.ndarray | None = None
    """Sequence and token that decide a word, int32 [words, 2]; -1 for words without tokens."""


def words_of(record: Record, column: str) -> tuple[str, ...]:
    """The record's words; numbers become text. Raises `UserError`."""
    words = record.list(column)
    for i, word in enumerate(words):
        if isinstance(word, bool) or not isinstance(word, str | int | float):
            raise UserError(f"{column!r} has {word!r} at {i}; it must be a word")
    if not any(str(word).strip() for word in words):
        raise UserError(f"{column!r} is empty")
    return tuple(map(str, words))


def tags_of(
    record: Record, column: str, words: Sequence[str], index: Index, scheme: schemes.Name
) -> tuple[str, ...]:
    """The record's tags.

    Raises:
        UserError: unknown tags, another number than words, or a violation of the scheme.
    """
    values = record.list(column)
    if len(values) != len(words):
        raise UserError(
            f"{column!r} has {len(values)} tags for {len(words)} words; give each word one"
        )
    tags = tuple(index.names[index[value]] for value in values)
    broken = schemes.first_break([schemes.parse(t, scheme) for t in tags], scheme)
    if broken is not None:
        around = " ".join(tags[max(broken - 1, 0) : broken + 2])
        raise UserError(
            f"tag {tags[broken]!r} of word {broken + 1}, {words[broken]!r}, breaks {scheme} in"
            f' "{around}"; correct it, or name another scheme'
        )
    return tags


def spans_of(record: Record, column: str, text: str) -> tuple[Span, ...]:
    """The entities of a text, sorted. Raises `UserError` for bad or overlapping ones."""
    spans = []
    for entity in record.list(column):
        if not isinstance(entity, Mapping) or not {"start", "end", "label"} <= {*entity}:
            raise UserError(f"{column!r} has {entity!r}; it must have start, end and label")
        start, stop = entity["start"], entity["end"]
        if type(start) is not int or type(stop) is not int or not 0 <= start < stop <= len(text):
            raise UserError(
                f"{column!r} has an entity from {start!r} to {stop!r}; the text has"
                f" {len(text)} characters"
            )
        spans.append(Span(labels.name(entity["label"]), start, stop))
    spans.sort(key=lambda span: span.start)
    for a, b in itertools.pairwise(spans):
        if b.start < a.stop:
            raise UserError(
                f"{column!r} has {text[a.start : a.stop]!r} and {text[b.start : b.stop]!r}, which"
                " overlap; each word can have one tag"
            )
    return tuple(spans)


def tagged_words(
    text: str, spans: Sequence[Span], borders: np.ndarray, scheme: schemes.Name
) -> tuple[str, ...]:
    """Tags of a text's words from its entities.

    Args:
        text: The text.
        spans: Its entities.
        borders: Characters of each word, int32 [words, 2].
        scheme: Scheme to write.

    Raises:
        UserError: an entity begins or ends within a word.
    """
    starts = {int(a): i for i, (a, _) in enumerate(borders)}
    stops = {int(b): i for i, (_, b) in enumerate(borders)}
    entities = []
    for kind, start, stop in spans:
        inner = text[start:stop]
        first = start + len(inner) - len(inner.lstrip())
        last = stop - len(inner) + len(inner.rstrip())
        if first not in starts or last not in stops:
            place = first if first not in starts else last
            cut = next((text[a:b] for a, b in borders if a < place < b), inner)
            raise UserError(
                f"entity {inner!r} at {start} begins or ends within {cut!r}, one word to the"
                " tokenizer; give the record's words and tags instead"
            )
        entities.append(schemes.Entity(kind, starts[first], stops[last] + 1))
    return tuple(schemes.write(entities, len(borders), scheme))


def located(words: Sequence[str], text: str) -> np.ndarray | None:
    """Characters of the words in the text, int32 [words, 2]; None if it holds other words."""
    spans, at = np.zeros((len(words), 2), np.int32), 0
    for i, word in enumerate(words):
        start = text.find(word, at)
        if start < 0 or text[at:start].strip():
            return None
        at = start + len(word)
        spans[i] = start, at
    return spans


def described(entity: schemes.Entity, source: Words, score: float) -> dict[str, Any]:
    """Describe an entity by its characters in the text, or by its words; ends are exclusive."""
    kind, start, stop = entity
    if source.text is None or source.spans is None:
        text = " ".join(source.words[start:stop])
        return {"label": kind, "first_word": start, "end_word": stop, "text": text, "score": score}
    start, stop = int(source.spans[start, 0]), int(source.spans[stop - 1, 1])
    text = source.text[start:stop]
    return {"label": kind, "start": start, "end": stop, "text": text, "score": score}

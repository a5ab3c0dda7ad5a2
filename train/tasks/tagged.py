"""Words with their tags, or a text with its entities: read from records, checked, and written."""

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
    """What a record says of its words. A text without words is split by the tokenizer."""

    words: tuple[str, ...] | None
    text: str | None
    tags: tuple[str, ...] | None = None
    """One for each word."""
    spans: tuple[Span, ...] | None = None
    """Entities of a text without words, in order."""


@dataclasses.dataclass(frozen=True)
class Words:
    """The words of an example, and where the model speaks of each."""

    words: tuple[str, ...]
    tags: tuple[str, ...] | None
    text: str | None
    """The record's text, where there is one..."""
    spans: np.ndarray | None
    """... and, int32 [words, 2], the characters of each word in it, if it holds them all."""
    places: np.ndarray | None = None
    """int32 [words, 2]: the sequence and the token that decide on a word; -1 where none does."""


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
    """The record's tags: known ones, as many as words, in keeping with the scheme.

    Raises:
        UserError: if they are not.
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
    found = []
    for entity in record.list(column):
        if not isinstance(entity, Mapping) or not {"start", "end", "label"} <= {*entity}:
            raise UserError(f"{column!r} has {entity!r}; it must have start, end and label")
        start, stop = entity["start"], entity["end"]
        whole = type(start) is int and type(stop) is int and 0 <= start < stop <= len(text)
        if not whole:
            raise UserError(
                f"{column!r} has an entity from {start!r} to {stop!r}; the text has"
                f" {len(text)} characters"
            )
        found.append(Span(labels.name(entity["label"]), start, stop))
    found.sort(key=lambda span: span.start)
    for a, b in itertools.pairwise(found):
        if b.start < a.stop:
            raise UserError(
                f"{column!r} has {text[a.start : a.stop]!r} and {text[b.start : b.stop]!r}, which"
                " overlap; each word can have one tag"
            )
    return tuple(found)


def tagged_words(
    text: str, spans: Sequence[Span], borders: np.ndarray, scheme: schemes.Name
) -> tuple[str, ...]:
    """Tags for the words of a text, whose characters are `borders` [words, 2].

    Raises:
        UserError: an entity that begins or ends within a word.
    """
    starts = {int(a): i for i, (a, _) in enumerate(borders)}
    stops = {int(b): i for i, (_, b) in enumerate(borders)}
    found = []
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
        found.append(schemes.Entity(kind, starts[first], stops[last] + 1))
    return tuple(schemes.write(found, len(borders), scheme))


def located(words: Sequence[str], text: str) -> np.ndarray | None:
    """Where the words stand in the text, int32 [words, 2]; None if it holds others."""
    spans, at = np.zeros((len(words), 2), np.int32), 0
    for i, word in enumerate(words):
        start = text.find(word, at)
        if start < 0 or text[at:start].strip():
            return None
        at = start + len(word)
        spans[i] = start, at
    return spans


def described(entity: schemes.Entity, source: Words, score: float) -> dict[str, Any]:
    """An entity by its characters in the text, or by its words; the end is the one behind."""
    kind, start, stop = entity
    if source.spans is None:
        text = " ".join(source.words[start:stop])
        return {"label": kind, "first_word": start, "end_word": stop, "text": text, "score": score}
    start, stop = int(source.spans[start, 0]), int(source.spans[stop - 1, 1])
    text = source.text[start:stop]
    return {"label": kind, "start": start, "end": stop, "text": text, "score": score}

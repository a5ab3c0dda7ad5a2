"""Alignment of tokens with the words and characters of their text.

Many tokenizers include the space before a word in its first token. Words of texts that are already
split lack it. `spaced` makes a tokenizer that adds it, for this library and for transformers.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import parse_object
from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.tokenizer_settings import CONFIG


class Pieces(NamedTuple):
    """Tokens of a text, without special ones."""

    ids: np.ndarray
    """int32 [tokens]."""
    words: np.ndarray
    """Number of each token's word, int32 [tokens], not decreasing; -1 is none."""


class Window(NamedTuple):
    """A pair in its template: all of the first text, and a part of the second one."""

    ids: np.ndarray
    """int32 [tokens]."""
    spans: np.ndarray
    """First character of each token in the second text and the one after its last, int32
    [tokens, 2]; -1 for tokens of the first text and of the template."""


def words(tokenizer: Tokenizer, texts: Sequence[Sequence[str]]) -> list[Pieces]:
    """Tokens of texts that are split into words; an empty word has none."""
    encodings = spaced(tokenizer).backend.encode_batch(
        [list(text) for text in texts], is_pretokenized=True, add_special_tokens=False
    )
    return [Pieces(np.array(e.ids, np.int32), _numbers(e.word_ids)) for e in encodings]


def pieces(tokenizer: Tokenizer, texts: Sequence[str]) -> list[tuple[Pieces, np.ndarray]]:
    """Tokens of texts, with the words into which the tokenizer splits them.

    Returns:
        The pieces, and the characters of each word without surrounding space, int32 [words, 2].
    """
    results = []
    encoded = tokenizer.backend.encode_batch(list(texts), add_special_tokens=False)
    for text, e in zip(texts, encoded, strict=True):
        spans = np.array([_trimmed(text, *span) for span in e.offsets], np.int32).reshape(-1, 2)
        numbers, inside = _numbers(e.word_ids), spans[:, 0] < spans[:, 1]
        # Renumber words: those that are only space are none. A space alone may begin a word, as it
        # does for words that are given.
        old, new = np.unique(numbers[inside], return_inverse=True)
        place = {int(number): word for word, number in enumerate(old)}
        numbers = np.array([place.get(int(n), -1) for n in numbers], np.int32)
        borders = np.zeros((len(old), 2), np.int32)
        for word in range(len(old)):
            own = spans[inside][new == word]
            borders[word] = own[:, 0].min(), own[:, 1].max()
        results.append((Pieces(np.array(e.ids, np.int32), numbers), borders))
    return results


def windows(
    tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], max_length: int, stride: int
) -> Iterator[list[Window]]:
    """Pairs in the template; over `max_length` the second text is divided into several windows.

    Each window has all of the first text, and begins with the last `stride` tokens of the previous
    window. They are those of transformers' `truncation="only_second"`. A pair has no windows where
    the first text leaves room for at most `stride` tokens.
    """
    sides = (
        tokenizer.backend.encode_batch([pair[k] for pair in pairs], add_special_tokens=False)
        for k in range(2)
    )
    special = tokenizer.backend.num_special_tokens_to_add(is_pair=True)
    for first, second in zip(*sides, strict=True):
        room = max_length - special - len(first)
        if room <= stride and len(second) > room:
            yield []
            continue
        second.truncate(max(room, 0), stride=stride, direction=tokenizer.truncation_side)
        whole = tokenizer.backend.post_process(first, second)
        results = []
        for encoding in (whole, *whole.overflowing):
            ours = np.array([s == 1 for s in encoding.sequence_ids])
            spans = np.array(encoding.offsets, np.int32).reshape(-1, 2)
            results.append(
                Window(np.array(encoding.ids, np.int32), np.where(ours[:, None], spans, -1))
            )
        yield results


def around(tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Ids of the template before and after a text. Raises `UserError` for unusual templates."""
    backend = tokenizer.backend
    whole, alone = backend.encode("a").ids, backend.encode("a", add_special_tokens=False).ids
    for start in range(len(whole) - len(alone) + 1):
        if whole[start : start + len(alone)] == alone:
            return whole[:start], whole[start + len(alone) :]
    raise UserError("tokenizer.json: its template changes the text that it is put around")


@functools.lru_cache(maxsize=2)
def spaced(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that adds a space before texts and words that begin with none.

    Words and the text that joins them have the same tokens then. The space is added by
    `tokenizer.json` itself: transformers 5 ignores `add_prefix_space` in `tokenizer_config.json`,
    and version 4 takes the space away where that key does not name it.
    """
    spec = parse_object(tokenizer.files["tokenizer.json"], "tokenizer.json")
    levels = [p for p in _inside(spec.get("pre_tokenizer")) if p.get("type") == "ByteLevel"]
    if levels:
        levels[0]["add_prefix_space"] = True
    elif _SPACE not in (own := _normalizers(spec)):
        spec["normalizer"] = {"type": "Sequence", "normalizers": [_SPACE, *own]}
    files = {**tokenizer.files, "tokenizer.json": _json(spec)}
    if CONFIG in files:
        files[CONFIG] = _json({**parse_object(files[CONFIG], CONFIG), "add_prefix_space": True})
    return Tokenizer(files)


_SPACE = {"type": "Replace", "pattern": {"Regex": r"\A(?=\S)"}, "content": " "}
"""Normalizer that adds a space where there is none, for tokenizers that are not byte-level."""


def _normalizers(spec: Mapping[str, Any]) -> list[Any]:
    """The normalizers of a `tokenizer.json`, in order."""
    normalizer = spec.get("normalizer")
    if isinstance(normalizer, Mapping) and normalizer.get("type") == "Sequence":
        return list(normalizer["normalizers"])
    return [] if normalizer is None else [normalizer]


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=2, ensure_ascii=False).encode()


def _inside(pre_tokenizer: Any) -> list[Any]:
    """A pre-tokenizer, with those in it if it is a sequence."""
    if not isinstance(pre_tokenizer, Mapping):
        return []
    nested = pre_tokenizer.get("pretokenizers", ())
    return [pre_tokenizer, *(p for inner in nested for p in _inside(inner))]


def _numbers(word_ids: Sequence[int | None]) -> np.ndarray:
    return np.array([-1 if w is None else w for w in word_ids], np.int32)


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    """A span without the space at its ends."""
    while start < stop and text[start].isspace():
        start += 1
    while start < stop and text[stop - 1].isspace():
        stop -= 1
    return start, stop

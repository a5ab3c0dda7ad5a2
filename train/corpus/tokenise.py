"""Documents to token ids, and long ones into pieces."""

import collections
import itertools
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from modernbert_jax.tokenizer import Tokenizer

from .sources import Document

LEAST = 64
"""Tokens in the last piece of a document that is cut: fewer would have no context to learn from."""

CHUNKING = (
    f"pieces of at most length - 2 tokens; a last piece below {LEAST} tokens, or an eighth of the"
    " row if that is less, is filled up from the end of the piece before it; none lost or repeated"
)
"""How manifests record what `bounds` does."""

_DOCUMENTS, _CHARACTERS = 512, 4 << 20
"""A batch for the tokenizer has at most so many documents, and ends with so many characters."""

_PIECE = 1 << 18
"""Characters tokenised at once; a longer document is split between words."""

_BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
_AHEAD = 2
"""Batches that are tokenised while another is packed."""


def tokenise(
    documents: Iterable[tuple[int, Document]], tokenizer: Tokenizer, dtype: np.dtype
) -> Iterator[tuple[int, Document, np.ndarray]]:
    """Numbered documents with their token ids [n] of type `dtype`, without special tokens around.

    In order. The tokenizer uses as many threads as its library was given, besides this one.
    """
    running: collections.deque[Future] = collections.deque()
    with ThreadPoolExecutor(1) as executor:
        try:
            for batch in _batches(documents):
                running.append(executor.submit(_encode, batch, tokenizer, dtype))
                if len(running) > _AHEAD:
                    yield from running.popleft().result()
            while running:
                yield from running.popleft().result()
        finally:
            for future in running:
                future.cancel()


def bounds(count: int, size: int, least: int = LEAST) -> list[tuple[int, int]]:
    """Where to cut `count` tokens into pieces of at most `size`, the last with `least` or more.

    As in Ettin's data (Weller et al. 2025): a short last piece is filled up with tokens taken
    from the end of the piece before it, so that none is lost or repeated. In rows too short for
    `least` an eighth of the row will do, because long last pieces pack badly.
    """
    cuts = [*range(0, count, size), count]
    if len(cuts) > 2:
        cuts[-2] = min(cuts[-2], count - min(least, size // 8))
    return list(itertools.pairwise(cuts))


def _encode(
    batch: list[tuple[int, Document]], tokenizer: Tokenizer, dtype: np.dtype
) -> list[tuple[int, Document, np.ndarray]]:
    parts = [list(_split(d)) if isinstance(d, str) else [] for _, d in batch]
    encoded = iter(tokenizer.encode_raw(list(itertools.chain.from_iterable(parts))))
    found = []
    for (number, document), pieces in zip(batch, parts, strict=True):
        if isinstance(document, str):
            ids = np.concatenate([np.array(next(encoded), dtype) for _ in pieces])
        else:
            ids = _body(document, tokenizer).astype(dtype)
        found.append((number, document, ids))
    return found


def _split(text: str) -> Iterator[str]:
    """A text in pieces that give the same tokens as the whole.

    They end before a single space between words, where byte-level BPE begins a new word anyway.
    """
    start = 0
    while len(text) - start > _PIECE:
        found = _BETWEEN_WORDS.search(text, start + _PIECE)
        if found is None:
            break
        yield text[start : found.start()]
        start = found.start()
    yield text[start:]


def _body(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Token ids from elsewhere without padding behind, [CLS] in front and [SEP] at the end."""
    ids = ids.reshape(-1)
    used = np.flatnonzero(ids != tokenizer.pad_id)
    ids = ids[: used[-1] + 1] if used.size else ids[:0]
    ids = ids[1:] if ids.size and ids[0] == tokenizer.cls_id else ids
    return ids[:-1] if ids.size and ids[-1] == tokenizer.sep_id else ids


def _batches(
    documents: Iterable[tuple[int, Document]],
) -> Iterator[list[tuple[int, Document]]]:
    batch: list[tuple[int, Document]] = []
    size = 0
    for number, document in documents:
        batch.append((number, document))
        size += len(document)
        if len(batch) == _DOCUMENTS or size >= _CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

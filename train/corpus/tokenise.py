"""Documents to token ids in the background, and where to cut long ones."""

import collections
import itertools
import re
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from modernbert_jax.tokenizer import Tokenizer

from .sources import Document

LEAST = 64
"""Tokens in the last piece of a cut document, at least: fewer have too little context."""

CHUNKING = (
    f"pieces of at most length - 2 tokens; a last piece below {LEAST} tokens, or an eighth of the"
    " row if that is less, is filled up from the end of the piece before it; none lost or repeated"
)
"""Description of `bounds` in manifests."""

_DOCUMENTS, _CHARACTERS = 512, 4 << 20
"""A batch for the tokenizer ends at either number."""

PIECE = 1 << 18
"""Characters tokenised at once; longer documents are split between words."""

_BETWEEN_WORDS = re.compile(r"(?<=\S) (?=\S)")
_AHEAD = 2
"""Batches tokenised while another is packed."""

Numbered = tuple[int, Document]
Tokenised = tuple[int, Document, np.ndarray]
"""A document's number, the document, and its token ids [n] without special tokens around them."""


def tokenise(
    documents: Iterable[Numbered], tokenizer: Tokenizer, dtype: np.dtype
) -> Generator[Tokenised]:
    """Yield numbered documents with their token ids of type `dtype`, in order.

    The tokenizer runs in one more thread, which uses as many as its library is configured for.
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
    """Cut `count` tokens into pieces of at most `size`, the last with `least` or more.

    As in Ettin's data (Weller et al. 2025), a short last piece takes tokens from the end of the
    piece before it, so that none is lost or repeated. In rows too short for `least`, an eighth of
    the row suffices, because long last pieces pack badly.
    """
    cuts = [*range(0, count, size), count]
    if len(cuts) > 2:
        cuts[-2] = min(cuts[-2], count - min(least, size // 8))
    return list(itertools.pairwise(cuts))


def split(text: str) -> Iterator[str]:
    """Split a long text into parts of about `PIECE` characters with the same tokens as the whole.

    Parts end before a single space between words, where byte-level BPE begins a word anyway.
    """
    start = 0
    while len(text) - start > PIECE:
        space = _BETWEEN_WORDS.search(text, start + PIECE)
        if space is None:
            break
        yield text[start : space.start()]
        start = space.start()
    yield text[start:]


def _encode(batch: list[Numbered], tokenizer: Tokenizer, dtype: np.dtype) -> list[Tokenised]:
    parts = [list(split(d)) if isinstance(d, str) else [] for _, d in batch]
    encoded = iter(tokenizer.encode_raw(list(itertools.chain.from_iterable(parts))))
    tokenised = []
    for (number, document), texts in zip(batch, parts, strict=True):
        if isinstance(document, str):
            ids = np.concatenate([np.array(next(encoded), dtype) for _ in texts])
        else:
            ids = _body(document, tokenizer).astype(dtype)
        tokenised.append((number, document, ids))
    return tokenised


def _body(ids: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Token ids of a tokenised corpus without trailing padding, first [CLS] and last [SEP]."""
    ids = ids.reshape(-1)
    used = np.flatnonzero(ids != tokenizer.pad_id)
    ids = ids[: used[-1] + 1] if used.size else ids[:0]
    ids = ids[1:] if ids.size and ids[0] == tokenizer.cls_id else ids
    return ids[:-1] if ids.size and ids[-1] == tokenizer.sep_id else ids


def _batches(documents: Iterable[Numbered]) -> Iterator[list[Numbered]]:
    batch: list[Numbered] = []
    size = 0
    for number, document in documents:
        batch.append((number, document))
        size += len(document)
        if len(batch) == _DOCUMENTS or size >= _CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch

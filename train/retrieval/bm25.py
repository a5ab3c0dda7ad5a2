"""BM25 over texts, by bm25s, as a model that needs no training."""

import importlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError

from .candidates import NONE, Candidates


class Bm25:
    """An index of documents in memory, with Lucene's formula and English stop words."""

    def __init__(self, documents: Sequence[str], k1: float = 1.5, b: float = 0.75):
        """Index documents.

        Args:
            documents: at least one text.
            k1: saturation of the frequency of a term.
            b: how far the length of a document counts, from 0 to 1.

        Raises:
            UserError: bm25s is not installed.
        """
        bm25s = _library()
        self._tokens = bm25s.tokenization.Tokenizer(stopwords="english", stemmer=None)
        ids = self._tokens.tokenize(documents, show_progress=False, allow_empty=False)
        self._count = len(ids)
        self._vocabulary = len(self._tokens.get_vocab_dict())
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene")
        if self._vocabulary:
            vocabulary = self._tokens.get_vocab_dict()
            self._index.index((ids, vocabulary), create_empty_token=False, show_progress=False)

    def scores(self, query: str) -> np.ndarray:
        """Scores of all documents for a query: float32 [documents]; 0 without a common term."""
        (ids,) = self._tokens.tokenize(
            [query], update_vocab="never", show_progress=False, allow_empty=False
        )
        if not ids:
            return np.zeros(self._count, np.float32)
        return np.asarray(self._index.get_scores(ids), np.float32)

    def search(self, queries: Sequence[str], k: int) -> Candidates:
        """The best documents of each query [Q, K], those with a common term, best first.

        K is k, or the number of documents if that is smaller. Equal scores are in the order of the
        documents.
        """
        k = min(k, self._count)
        best = Candidates(
            np.full((len(queries), k), -np.inf, np.float32),
            np.full((len(queries), k), NONE, np.int64),
        )
        for i, query in enumerate(queries):
            scores = self.scores(query)
            indices = top(scores, k)
            indices = indices[scores[indices] > 0]
            best.scores[i, : len(indices)] = scores[indices]
            best.indices[i, : len(indices)] = indices
        return best


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Numbers of the k largest scores [n], largest first; equal ones in their order."""
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above = np.flatnonzero(scores > least)
        numbers = np.append(above, np.flatnonzero(scores == least)[: k - len(above)])
    else:
        numbers = np.arange(len(scores))
    return numbers[np.lexsort((numbers, -scores[numbers]))]


def _library() -> Any:
    try:
        importlib.import_module("bm25s.tokenization")
        library = importlib.import_module("bm25s")
    except ImportError:
        raise UserError(
            "bm25 needs the package bm25s; install it with: pip install 'modernbert-jax[retrieval]'"
        ) from None
    logging.getLogger("bm25s").setLevel(logging.WARNING)
    return library

"""BM25 against its formula, written out."""

import collections
import math
import re
import sys

import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.retrieval.bm25 import Bm25, top
from modernbert_jax.train.retrieval.candidates import NONE

DOCUMENTS = [
    "the cat sat on the mat near another cat",
    "dogs chase a cat",
    "the of and",
    "a mat, a mat and one more mat",
    "dogs chase a cat",
]


def expected(query: str, k1: float = 1.5, b: float = 0.75) -> list[float]:
    """Lucene's BM25 without its constant factor, for words of two letters and more."""
    stop = {"the", "of", "and", "on", "a"}

    def words(text: str) -> list[str]:
        return [word for word in re.findall(r"\w\w+", text.lower()) if word not in stop]

    texts = [words(text) for text in DOCUMENTS]
    mean = sum(map(len, texts)) / len(texts)
    scores = []
    for text in texts:
        counts, score = collections.Counter(text), 0.0
        for word in words(query):
            having = sum(word in other for other in texts)
            if having and counts[word]:
                idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
                norm = k1 * (1 - b + b * len(text) / mean)
                score += idf * counts[word] / (counts[word] + norm)
        scores.append(score)
    return scores


def test_scores_are_those_of_the_formula():
    index = Bm25(DOCUMENTS)
    for query in ("cat", "a mat for dogs", "cat cat mat", "zebra", "the"):
        assert np.allclose(index.scores(query), expected(query), atol=1e-6), query


def test_search_keeps_common_terms_and_the_order_of_documents():
    best = Bm25(DOCUMENTS).search(["cat", "the", "mat zebra"], 4)
    assert best.indices.tolist() == [[0, 1, 4, NONE], [NONE] * 4, [3, 0, NONE, NONE]]
    assert (np.isneginf(best.scores) == (best.indices == NONE)).all()
    assert Bm25(["the", "of"]).search(["cat"], 1).indices.tolist() == [[NONE]]


def test_top_against_sorting():
    rng = np.random.default_rng(0)
    for k in (1, 3, 10, 20, 30):
        scores = rng.integers(0, 4, 20).astype(np.float32)
        assert top(scores, k).tolist() == sorted(range(20), key=lambda i: (-scores[i], i))[:k]


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm25s", None)
    monkeypatch.setitem(sys.modules, "bm25s.tokenization", None)
    with pytest.raises(UserError, match="bm25s; install it with"):
        Bm25(["x"])

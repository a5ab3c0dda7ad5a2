"""Exact search by MaxSim against loops over all texts: ties, blocks, texts without vectors."""

import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.scoring import LateTopK, late_pairs, late_search


def texts(rng, count, least, most):
    """Token vectors of small whole numbers, whose products are exact and often equal."""
    return [
        rng.integers(-1, 2, (int(n), 4)).astype(np.float32)
        for n in rng.integers(least, most + 1, count)
    ]


def by_definition(queries, documents, mean=False):
    scores = np.zeros((len(queries), len(documents)), np.float32)
    for q, query in enumerate(queries):
        for d, document in enumerate(documents):
            if len(document) and len(query):
                scores[q, d] = (query @ document.T).max(1).sum() / (len(query) if mean else 1)
    return scores


@pytest.mark.parametrize("mean", [False, True])
def test_it_equals_loops_over_all_texts(mean, monkeypatch):
    """Documents of equal scores come in their order, in blocks and between them."""
    monkeypatch.setattr(late_search, "TOKENS", 100)
    monkeypatch.setattr(late_search, "QUERY_TOKENS", 64)
    rng = np.random.default_rng(0)
    queries, documents = texts(rng, 5, 1, 7), texts(rng, 40, 0, 9)
    documents[3] = documents[3][:0]
    expected = by_definition(queries, documents, mean)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :12]
    assert (np.diff(np.take_along_axis(expected, order, 1), axis=1) == 0).any()
    search = LateTopK(queries, 12, mean)
    for part in (documents[:1], documents[1:30], documents[30:]):
        search.add(part)
    assert search.documents == 40
    scores, numbers = search.results()
    assert scores.dtype == np.float32 and numbers.dtype == np.int64
    assert np.array_equal(numbers, order)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, order, 1), rtol=1e-6)
    some = [documents[i] for i in (3, 8, 1, 39, 8)]
    np.testing.assert_allclose(
        late_pairs(queries, some, mean), np.diagonal(by_definition(queries, some, mean)), rtol=1e-6
    )


def test_few_documents_and_none():
    rng = np.random.default_rng(1)
    queries, documents = texts(rng, 2, 2, 3), texts(rng, 3, 2, 3)
    search = LateTopK(queries, 9)
    assert search.results()[0].shape == (2, 0)
    search.add(documents)
    assert search.results()[1].shape == (2, 3)
    search = LateTopK(queries, 10**9)  # takes no more places than there are documents
    search.add(documents)
    assert search.results()[1].shape == (2, 3)
    assert LateTopK([], 9).results()[1].shape == (0, 0)
    assert late_pairs([], []).shape == (0,)


def test_what_does_not_fit_is_one_clear_line():
    one = [np.zeros((2, 4), np.float32)]
    with pytest.raises(UserError, match="k is 0"):
        LateTopK(one, 0)
    with pytest.raises(UserError, match="documents have width 3; others have width 4"):
        LateTopK(one, 1).add([np.zeros((2, 3), np.float32)])
    with pytest.raises(UserError, match="1 queries and 0 documents"):
        late_pairs(one, [])
    with pytest.raises(UserError, match=r"\[tokens, E\] each"):
        LateTopK([np.zeros(4, np.float32)], 1)

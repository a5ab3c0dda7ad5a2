"""Similarities and exact search of sparse vectors, against their definitions on dense ones."""

import numpy as np
import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.scoring import SIMILARITIES, SparseTopK, sparse

WIDTH = 40


def vectors(count, seed, ids=WIDTH):
    """Dense and sparse vectors with few weights, the first without any."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((count, WIDTH)) < 0.2, rng.integers(1, 5, (count, WIDTH)), 0)
    dense[0] = 0
    dense[:, ids:] = 0
    dense = dense.astype(np.float32) / 2
    return dense, [(np.flatnonzero(x).astype(np.int32), x[x > 0]) for x in dense]


@pytest.mark.parametrize("name", sparse.SIMILARITIES)
def test_similarities_are_those_of_dense_vectors(name):
    (a, queries), (b, documents) = vectors(7, 0), vectors(30, 1, ids=30)
    own = sparse.similarities(queries, documents, name)
    assert own.dtype == np.float32
    np.testing.assert_allclose(own, SIMILARITIES[name](a, b), atol=1e-5)
    assert sparse.similarities([], documents, name).shape == (0, 30)
    pairs = sparse.paired(queries, documents[-7:], name)
    assert pairs.dtype == np.float32
    np.testing.assert_allclose(pairs, np.diagonal(own[:, -7:]), atol=1e-5)
    assert sparse.paired([], [], name).shape == (0,)
    assert sparse.paired(queries[:1], documents[:1], name).shape == (1,)


@pytest.mark.parametrize("weights", [1, 50, 2**20])
def test_the_best_documents_in_any_blocks(weights, monkeypatch):
    """Many scores are equal; of these the documents with smaller numbers come first."""
    monkeypatch.setattr(sparse, "WEIGHTS", weights)
    (a, queries), (b, documents) = vectors(5, 0), vectors(60, 1)
    search = SparseTopK(queries, 8)
    search.add(documents[:25])
    search.add(documents[25:])
    assert search.documents == 60
    scores, numbers = search.results()
    every = a @ b.T
    wanted = np.argsort(-every, axis=1, kind="stable")[:, :8]
    np.testing.assert_array_equal(numbers, wanted)
    np.testing.assert_array_equal(scores, np.take_along_axis(every, wanted, 1))
    assert numbers.dtype == np.int64 and scores.dtype == np.float32


def test_few_documents_or_none():
    _, some = vectors(3, 0)
    search = SparseTopK(some, 10)
    assert search.results()[0].shape == (3, 0)
    search.add(some)
    assert search.results()[1].shape == (3, 3)
    assert SparseTopK([], 4).results()[1].shape == (0, 0)
    with pytest.raises(UserError, match="3 queries and 2 documents are no pairs"):
        sparse.paired(some, some[:2])
    for arguments, message in (((0,), "k is 0"), ((3, "dot_score"), "similarity is 'dot_score'")):
        with pytest.raises(UserError, match=message):
            SparseTopK(some, *arguments)

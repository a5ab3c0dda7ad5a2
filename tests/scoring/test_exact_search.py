"""Exact search against brute force: ties, blocks, devices, few shapes."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modernbert_jax import UserError, scoring
from modernbert_jax.scoring import SIMILARITIES, exact_search, top_k
from modernbert_jax.sharding import MeshShape


def brute_force(queries, documents, k, similarity):
    """Order by similarity, then by number, with plain loops over all documents."""
    scores = SIMILARITIES[similarity](queries, documents)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), order


def whole(rng, *shape):
    """Vectors of small whole numbers, whose products are exact and often equal."""
    return rng.integers(-2, 3, shape).astype(np.float32)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_it_equals_brute_force(similarity):
    rng = np.random.default_rng(0)
    queries, documents = rng.standard_normal((2, 700, 16)).astype(np.float32)
    queries = queries[:11]
    expected = brute_force(queries, documents, 9, similarity)
    scores, numbers = top_k(queries, np.array_split(documents, 7), 9, similarity)
    assert scores.dtype == np.float32 and numbers.dtype == np.int64
    assert np.array_equal(numbers, expected[1])
    assert np.allclose(scores, expected[0], atol=1e-5)


def test_ties_go_to_the_smaller_number_in_and_between_blocks(monkeypatch):
    monkeypatch.setattr(exact_search, "BLOCK", 256)
    monkeypatch.setattr(exact_search, "QUERIES", 8)
    rng = np.random.default_rng(1)
    queries, documents = whole(rng, 20, 4), whole(rng, 900, 4)
    expected = brute_force(queries, documents, 10, "dot")
    assert (np.diff(expected[0], axis=1) == 0).mean() > 0.5
    for k in (1, 10, 200):
        expected = brute_force(queries, documents, k, "dot")
        scores, numbers = top_k(queries, [documents[:3], documents[3:]], k, "dot")
        assert np.array_equal(numbers, expected[1])
        assert np.array_equal(scores, expected[0])


def test_a_corpus_may_be_smaller_than_k_or_empty():
    queries = np.eye(3, dtype=np.float32)
    scores, numbers = top_k(queries, [queries[:2]], 10**12)
    assert numbers.tolist() == [[0, 1], [1, 0], [0, 1]] and scores[0].tolist() == [1, 0]
    assert top_k(queries, [], 5)[0].shape == (3, 0)
    assert top_k(queries[:0], [queries], 2)[1].shape == (0, 2)


def test_zero_vectors_have_cosine_zero():
    scores, _ = top_k(np.zeros((1, 3)), [np.ones((2, 3))], 2)
    assert scores.tolist() == [[0, 0]]


def test_wrong_arguments_are_named():
    one = np.ones((1, 3), np.float32)
    for arguments, message in (
        ((one, [one], 1, "cosin"), "did you mean 'cosine'"),
        ((one, [one], 0), "k is 0"),
        ((one, [one[:, :2]], 1), "width 3"),
        ((one[0], [one], 1), "vectors"),
    ):
        with pytest.raises(UserError, match=message):
            top_k(*arguments)


def test_documents_can_be_added_after_results():
    rng = np.random.default_rng(2)
    queries, documents = whole(rng, 2, 5), whole(rng, 40, 5)
    search = scoring.TopK(queries, 3, "dot")
    search.add(documents[:30])
    assert search.documents == 30
    assert np.array_equal(search.results()[1], brute_force(queries, documents[:30], 3, "dot")[1])
    search.add(documents[30:])
    assert np.array_equal(search.results()[1], brute_force(queries, documents, 3, "dot")[1])


def on_a_mesh():
    """Search on four devices; run in a process of its own."""
    rng = np.random.default_rng(3)
    queries, documents = whole(rng, 9, 4), whole(rng, 3000, 4)
    mesh = MeshShape(data=2, fsdp=2).make()
    for similarity, k in (("dot", 7), ("manhattan", 300)):
        found = top_k(queries, np.array_split(documents, 5), k, similarity, mesh)
        expected = brute_force(queries, documents, k, similarity)
        assert all(map(np.array_equal, found, expected))


def test_devices_share_the_documents():
    code = (
        "import sys; sys.path[:0] = sys.argv[1:]\n"
        "import jax; jax.config.update('jax_num_cpu_devices', 4)\n"
        "import test_exact_search; test_exact_search.on_a_mesh()\n"
        "import test_maxsim; test_maxsim.on_a_mesh()"
    )
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code, here, here.parent / "support"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr

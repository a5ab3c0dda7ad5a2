"""What a validation during training counts: which positives are ranked above which documents."""

import numpy as np
import pairs
import pytest

from modernbert_jax.inference.shapes import Shape
from modernbert_jax.train.retrieval.batches import in_order
from modernbert_jax.train.retrieval.validation import RankingValidation, values

PAIRS = [
    {"query": query, "positive": positive}
    for query, positive in (("a", "x"), ("b", "x"), ("a", "y"), ("c", "z"))
]


class Examples(RankingValidation):
    """The values alone, from similarities of queries and documents [n, n]."""

    def __init__(self):
        self._scores = lambda similarities: similarities[..., None]


@pytest.fixture(scope="module")
def batches():
    return pairs.batches(
        pairs.config(batch_examples=3), PAIRS, Shape(rows=4, length=64, documents=8)
    )


def test_a_positive_is_not_compared_with_other_positives_of_its_query(batches):
    (dataset,) = batches.sets
    similarities = np.array([[5, 5, 9, 1], [7, 7, 2, 1], [9, 9, 2, 3], [1, 1, 8, 4]], np.float32)
    found = Examples().values(dataset, np.arange(4), similarities)
    assert found.tolist() == [True, True, False, False]


def test_an_example_without_negatives_is_not_counted(batches):
    (dataset,) = batches.sets
    assert Examples().values(dataset, np.array([2]), np.ones((1, 1))).shape == (0,)
    assert Examples().values(dataset, np.array([0, 1]), np.ones((2, 2))).shape == (0,)
    scores, present = np.float32([[1, 2], [1, 2]]), np.array([[1, 1, 1], [1, 1, 0]], bool)
    found = values("none", scores, present, np.zeros((2, 0)), np.eye(2, dtype=bool))
    assert found.tolist() == [False]


def test_batches_of_a_validation_are_of_about_one_size(batches):
    assert [members.examples.tolist() for members, _ in in_order(batches)] == [[0, 1], [2, 3]]

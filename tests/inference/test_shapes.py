"""Batches of few shapes that hold every document once."""

import numpy as np
import pytest

from modernbert_jax.errors import UserError
from modernbert_jax.inference import shapes


def check_rows(shape, rows, lengths):
    """Rows of a batch fit its shape."""
    assert len(rows) <= shape.rows
    for row in rows:
        assert len(row) <= shape.documents and sum(lengths[i] for i in row) <= shape.length


def test_shapes_are_few():
    rng = np.random.default_rng(0)
    used = set()
    for n in (1, 3, 10, 50, 200):
        lengths = rng.integers(0, 600, n).tolist()
        placed = []
        for shape, rows in shapes.plan(lengths, 2048):
            used.add((shape.rows, shape.length))
            assert shape.tokens <= 2048 and shape.documents == shapes.DOCUMENTS
            check_rows(shape, rows, lengths)
            placed += [i for row in rows for i in row]
        assert sorted(placed) == [i for i, length in enumerate(lengths) if length]
    # Powers of two of rows: up to 16 of 128 tokens, 8 of 256, 4 of 512, 2 of 1,024.
    assert len(used) <= 14
    assert all(length in (128, 256, 512, 1024) for _, length in used)


@pytest.mark.parametrize("pieces", (2, 3, 8))
def test_pieces_get_the_same_number_of_rows(pieces):
    lengths = np.random.default_rng(pieces).integers(1, 600, 100).tolist()
    placed = []
    for shape, rows in shapes.plan(lengths, 2048, pieces):
        own = shape.rows // pieces
        assert own * pieces == shape.rows and own & (own - 1) == 0
        assert own * shape.length <= 2048
        assert len(rows) > shape.rows - max(pieces, shape.rows / 4)
        placed += [i for row in rows for i in row]
    assert sorted(placed) == list(range(100))


def test_many_tiny_documents_share_rows():
    batches = list(shapes.plan([2] * 1000, 1024))
    assert max(len(row) for _, rows in batches for row in rows) == shapes.DOCUMENTS
    assert len(batches) == 2


@pytest.mark.parametrize("number", (64, 128, 256))
def test_hardly_a_token_is_padding(number):
    """Natural lengths fill rows of one length, and the rows batches, without empty ones."""
    lengths = np.random.default_rng(number).lognormal(np.log(120), 0.8, number).clip(16, 512)
    lengths = lengths.astype(int).tolist()
    computed = sum(shape.tokens for shape, _ in shapes.plan(lengths, 8192))
    assert sum(lengths) > 0.95 * computed


def test_a_short_document_gets_a_short_row():
    ((shape, rows),) = shapes.plan([20], 8192)
    assert (shape.rows, shape.length, rows) == (1, 128, [[0]])


def test_a_batch_needs_tokens():
    with pytest.raises(UserError, match="batch_tokens is 0"):
        list(shapes.plan([1], 0))

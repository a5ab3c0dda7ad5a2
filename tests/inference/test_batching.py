"""Batches of few shapes that hold every document once."""

import numpy as np
import pytest

from modernbert_jax.inference import batching


def test_shapes_are_few():
    rng = np.random.default_rng(0)
    shapes = set()
    for n in (1, 3, 10, 50, 200):
        given = [[1] * int(k) for k in rng.integers(0, 600, n)]
        seen = []
        for batch, rows in batching.batches(given, 2048):
            shapes.add(batch.token_ids.shape)
            assert batch.token_ids.size <= 2048 and batch.segment_ids.max() <= 64
            seen += [i for row in rows for i in row]
            for row, indices in zip(batch.segment_ids, rows, strict=False):
                assert np.bincount(row)[1:].tolist() == [len(given[i]) for i in indices]
        assert sorted(seen) == [i for i, ids in enumerate(given) if ids]
    assert (
        len(shapes) <= 14
    )  # a power of two of rows up to 16 of 128, 8 of 256, 4 of 512, 2 of 1,024
    assert all(length in (128, 256, 512, 1024) for _, length in shapes)


@pytest.mark.parametrize("pieces", (2, 3, 8))
def test_pieces_get_the_same_number_of_rows(pieces):
    given = [[1] * int(n) for n in np.random.default_rng(pieces).integers(1, 600, 100)]
    seen = []
    for batch, rows in batching.batches(given, 2048, pieces):
        count, length = batch.token_ids.shape
        own = count // pieces
        assert own * pieces == count and own & (own - 1) == 0
        assert own * length <= 2048 and len(rows) > count - max(pieces, count / 4)
        seen += [i for row in rows for i in row]
    assert sorted(seen) == list(range(100))


def test_many_tiny_documents_share_rows():
    given = [[1, 2]] * 1000
    batches = list(batching.batches(given, 1024))
    assert max(len(row) for _, rows in batches for row in rows) == batching.ROW_DOCUMENTS
    assert len(batches) == 2


@pytest.mark.parametrize("number", (64, 128, 256))
def test_hardly_a_token_is_padding(number):
    """Natural lengths fill rows of one length, and the rows batches, without empty ones."""
    lengths = np.random.default_rng(number).lognormal(np.log(120), 0.8, number).clip(16, 512)
    given = [[1] * int(n) for n in lengths]
    computed = sum(batch.token_ids.size for batch, _ in batching.batches(given, 8192))
    assert sum(map(len, given)) > 0.95 * computed


def test_a_short_document_gets_a_short_row():
    ((batch, _),) = batching.batches([[1] * 20], 8192)
    assert batch.token_ids.shape == (1, 128)

"""Batches of few shapes that hold every document once."""

import numpy as np

from modernbert_jax import batching


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
    assert len(shapes) <= 12
    assert all(length in (128, 256, 512, 1024) for _, length in shapes)


def test_many_tiny_documents_share_rows():
    given = [[1, 2]] * 1000
    batches = list(batching.batches(given, 1024))
    assert max(len(row) for _, rows in batches for row in rows) == batching.ROW_DOCUMENTS
    assert len(batches) == 2

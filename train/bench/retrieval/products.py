"""Products of sparse vectors."""

from collections.abc import Sequence

import numpy as np

from modernbert_jax.splade import SparseVector


def sparse_products(
    queries: Sequence[SparseVector], documents: Sequence[SparseVector]
) -> np.ndarray:
    """Products of all queries with all documents, float64 [Q, D]."""
    every = (*queries, *documents)
    size = 1 + max((int(own.indices[-1]) for own in every if len(own.indices)), default=0)
    dense = [_dense(vectors, size) for vectors in (queries, documents)]
    return dense[0] @ dense[1].T


def _dense(vectors: Sequence[SparseVector], size: int) -> np.ndarray:
    rows = np.zeros((len(vectors), size))
    for row, (indices, values) in zip(rows, vectors, strict=True):
        row[indices] = values
    return rows

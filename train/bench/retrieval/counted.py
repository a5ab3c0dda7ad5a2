"""A sparse encoder that counts the weights of its vectors."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from modernbert_jax.splade import SparseVector

from ...retrieval.retriever import Side
from ...retrieval.sparse_encoding import SparseTextEncoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class CountedSparseEncoder(SparseTextEncoder):
    """A sparse encoder with the numbers of weights of all texts that it has represented."""

    counts: dict[Side, list[int]] = dataclasses.field(
        default_factory=lambda: {"query": [], "document": []}
    )
    """Numbers of weights of queries and of documents, by text."""

    def active(self) -> dict[str, float]:
        """Mean numbers of weights of queries and of documents."""
        return {f"active_{side}": float(np.mean(x)) for side, x in self.counts.items()}

    def blocks(self, texts: Iterable[str], side: Side) -> Iterator[list[SparseVector]]:
        """As `SparseTextEncoder.blocks`."""
        for vectors in super().blocks(texts, side):
            self._count(vectors, side)
            yield vectors

    def encode(self, texts: Iterable[str], side: Side) -> list[SparseVector]:
        """As `SparseTextEncoder.encode`."""
        vectors = super().encode(texts, side)
        self._count(vectors, side)
        return vectors

    def _count(self, vectors: Sequence[SparseVector], side: Side) -> None:
        self.counts[side] += [len(vector.indices) for vector in vectors]


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

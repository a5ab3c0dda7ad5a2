"""Similarities of sparse vectors, and the best documents of every query, exactly.

Documents are turned into postings: for each id of the vocabulary the documents that have it, with
their weights. So a query costs as much as the postings of its own ids, whatever the size of the
vocabulary. Computed by the host, in float32.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError, did_you_mean

SIMILARITIES = ("dot", "cosine", "euclidean", "manhattan")

WEIGHTS = 2**24
"""Weights of the documents whose postings are in memory at once (0.2 GB), or of one document."""

Vector = tuple[np.ndarray, np.ndarray]
"""Ids in ascending order, and their weights above zero: a `splade.SparseVector`."""


class Postings:
    """Documents by the ids that they have."""

    def __init__(self, documents: Sequence[Vector]):
        """Sort the weights of documents by id."""
        indices, values = concatenated(documents)
        counts = [len(own) for own, _ in documents]
        order = np.argsort(indices, kind="stable")
        self._ids, starts = np.unique(indices[order], return_index=True)
        self._ends = np.append(starts, len(order))
        self._numbers = np.repeat(np.arange(len(documents), dtype=np.int32), counts)[order]
        self._values = values[order]
        self._sums, self._squares = _sums(self._numbers, self._values, len(documents))

    def __len__(self) -> int:
        """Number of documents."""
        return len(self._sums)

    def similarities(self, query: Vector, similarity: str = "dot") -> np.ndarray:
        """Similarities of a query with all documents, one of `SIMILARITIES`: float32 [n]."""
        ids, weights = query
        shared = np.zeros(len(self), np.float32)
        places = np.searchsorted(self._ids, ids)
        known = places < len(self._ids)
        known[known] = self._ids[places[known]] == ids[known]
        for place, weight in zip(places[known], weights[known], strict=True):
            own = slice(self._ends[place], self._ends[place + 1])
            values = self._values[own]
            # A document is once in the postings of an id.
            part = np.minimum(values, weight) if similarity == "manhattan" else values * weight
            shared[self._numbers[own]] += part
        query_sums = weights.sum(), np.square(weights).sum()
        return _of_shared(similarity, shared, query_sums, (self._sums, self._squares))


def paired(
    queries: Sequence[Vector], documents: Sequence[Vector], similarity: str = "dot"
) -> np.ndarray:
    """Similarities of each query with the document of the same number: float32 [P].

    Raises:
        UserError: an unknown similarity, or different numbers of queries and documents.
    """
    _check(similarity)
    if len(queries) != len(documents):
        raise UserError(f"{len(queries)} queries and {len(documents)} documents are no pairs")
    (pairs, ids, weights), (theirs, their_ids, values) = _flat(queries), _flat(documents)
    # Both are in ascending order of pair and id.
    keys, others = (p << 32 | i for p, i in ((pairs, ids), (theirs, their_ids)))
    places = np.minimum(np.searchsorted(others, keys), max(len(others) - 1, 0))
    hits = np.flatnonzero(others[places] == keys) if len(others) else np.zeros(0, np.int64)
    weight, value = weights[hits], values[places[hits]]
    part = np.minimum(weight, value) if similarity == "manhattan" else weight * value
    shared = np.zeros(len(queries), np.float32)
    np.add.at(shared, pairs[hits], part)
    sums = [_sums(p, x, len(queries)) for p, x in ((pairs, weights), (theirs, values))]
    return _of_shared(similarity, shared, *sums)


def _of_shared(similarity: str, shared: np.ndarray, *sums: tuple[Any, Any]) -> np.ndarray:
    """Similarities from those of shared ids, and from sums of weights and of squares of both."""
    (own, own_squares), (others, squares) = sums
    if similarity == "dot":
        return shared
    if similarity == "manhattan":
        return 2 * shared - others - own
    if similarity == "cosine":
        return shared / np.maximum(np.sqrt(squares * own_squares), 1e-12)
    return -np.sqrt(np.maximum(squares + own_squares - 2 * shared, 0))


def _sums(numbers: np.ndarray, values: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums of the weights and of their squares of each of `count` vectors, float32."""
    sums, squares = np.zeros((2, count), np.float32)
    np.add.at(sums, numbers, values)
    np.add.at(squares, numbers, np.square(values))
    return sums, squares


def _flat(vectors: Sequence[Vector]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Number of the vector, id and weight of all weights, one vector after another."""
    ids, weights = concatenated(vectors)
    counts = [len(own) for own, _ in vectors]
    return np.repeat(np.arange(len(vectors)), counts), ids.astype(np.int64), weights


def similarities(
    queries: Sequence[Vector], documents: Sequence[Vector], similarity: str = "dot"
) -> np.ndarray:
    """Similarities of all queries with all documents: float32 [Q, n].

    Raises:
        UserError: an unknown similarity.
    """
    _check(similarity)
    postings = Postings(documents)
    rows = [postings.similarities(query, similarity) for query in queries]
    return np.stack(rows) if rows else np.zeros((0, len(documents)), np.float32)


class SparseTopK:
    """A search to which documents are added, as `exact_search.TopK` for sparse vectors."""

    def __init__(self, queries: Sequence[Vector], k: int, similarity: str = "dot"):
        """Begin a search.

        Args:
            queries: sparse vectors of all queries.
            k: number of documents for each query.
            similarity: one of `SIMILARITIES`.

        Raises:
            UserError: an unknown similarity, or a k below 1.
        """
        _check(similarity)
        if k < 1:
            raise UserError(f"k is {k}; it must be 1 or more")
        self._queries, self._k, self._similarity = list(queries), k, similarity
        self._scores = np.zeros((len(self._queries), 0), np.float32)
        self._numbers = np.zeros((len(self._queries), 0), np.int64)
        self._waiting: list[Vector] = []
        self._size = self._searched = 0

    @property
    def documents(self) -> int:
        """Number of documents that were added."""
        return self._searched + len(self._waiting)

    def add(self, documents: Iterable[Vector]) -> None:
        """Add the next documents, with the next numbers."""
        for document in documents:
            self._waiting.append(document)
            self._size += len(document[0]) + 1
            if self._size >= WEIGHTS:
                self._search()

    def results(self) -> tuple[np.ndarray, np.ndarray]:
        """Similarities float32 [Q, K] in descending order, and numbers of documents int64 [Q, K].

        K is k, or the number of documents if that is smaller. Of equally similar documents the one
        with the smaller number comes first.
        """
        if self._waiting:
            self._search()
        return self._scores, self._numbers

    def _search(self) -> None:
        """Merge the documents that wait into the results."""
        postings, first = Postings(self._waiting), self._searched
        numbers = np.arange(first, first + len(postings))
        merged = []
        for query, scores, before in zip(self._queries, self._scores, self._numbers, strict=True):
            every = np.concatenate([scores, postings.similarities(query, self._similarity)])
            # Earlier documents stand first, and of equals the first are chosen.
            chosen = best(every, self._k)
            merged.append((every[chosen], np.concatenate([before, numbers])[chosen]))
        if merged:
            self._scores, self._numbers = (np.stack(part) for part in zip(*merged, strict=True))
        self._searched += len(postings)
        self._waiting, self._size = [], 0


def best(scores: np.ndarray, k: int) -> np.ndarray:
    """Places of the k highest of the scores [n], in descending order; of equals the first."""
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
        places = np.concatenate([above, equal[: k - len(above)]])
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")]


def concatenated(vectors: Sequence[Vector]) -> Vector:
    """Ids and weights of all vectors, one after the other: int32 and float32."""
    none = np.zeros(0, np.int32), np.zeros(0, np.float32)
    indices, values = zip(none, *vectors, strict=True)
    return np.concatenate(indices), np.concatenate(values)


def _check(similarity: str) -> None:
    if similarity not in SIMILARITIES:
        raise UserError(f"similarity is {similarity!r}; {did_you_mean(similarity, SIMILARITIES)}")

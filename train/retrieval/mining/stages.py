"""The ranking of documents for each query: by a first stage, then perhaps by a reranker."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

import numpy as np

from ..bm25 import Bm25
from ..candidates import NONE, Candidates
from ..parts import Parts
from .pool import Pool

SEARCHED = 16_384
"""Queries that are searched together."""

RANKED = 256
"""Queries of one `Ranking`, whose candidates are rescored together."""


class Ranking(NamedTuple):
    """Candidates of some queries, with the scores of their positives."""

    queries: np.ndarray
    """int64 [Q], consecutive numbers of queries."""
    candidates: Candidates
    """Of each query [Q, K]."""
    positives: np.ndarray
    """float32 [P], scores of the positives of all these queries, in the order of the pool."""


class Searcher(Protocol):
    """A first stage, which knows queries and documents by their numbers in the pool."""

    def search(self, queries: np.ndarray, k: int) -> Candidates:
        """The best documents of queries [Q, k]."""

    def pairs(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Scores of pairs of a query and a document [P]: float32 [P]."""


@dataclasses.dataclass(frozen=True)
class Bm25Searcher:
    """BM25 as a first stage."""

    pool: Pool
    index: Bm25

    @classmethod
    def of(cls, pool: Pool) -> "Bm25Searcher":
        """Index the documents of a pool."""
        return cls(pool, Bm25(pool.documents))

    def search(self, queries: np.ndarray, k: int) -> Candidates:
        """As `Searcher`."""
        return self.index.search([self.pool.queries[i] for i in queries], k)

    def pairs(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """As `Searcher`; the pairs of a query come one after the other."""
        result, last, scores = np.empty(len(queries), np.float32), NONE, np.empty(0)
        for i, (query, document) in enumerate(zip(queries, documents, strict=True)):
            if query != last:
                last, scores = query, self.index.scores(self.pool.queries[query])
            result[i] = scores[document]
        return result


def ranked(
    searcher: Callable[[], Searcher], pool: Pool, depth: int, parts: Parts
) -> Iterator[Ranking]:
    """Yield the rankings of all queries by a first stage.

    Args:
        searcher: makes the first stage, if it is needed.
        pool: queries and documents.
        depth: candidates of each query.
        parts: that keep the results.
    """
    made: list[Searcher] = []
    for start in range(0, len(pool.queries), SEARCHED):
        queries = np.arange(start, min(start + SEARCHED, len(pool.queries)))

        def compute(queries: np.ndarray = queries) -> dict[str, np.ndarray]:
            if not made:
                made.append(searcher())
            scores, indices = made[0].search(queries, depth)
            positives = made[0].pairs(*pool.pairs(queries))
            return {"scores": scores, "indices": indices, "positives": positives}

        block = parts.get(start // SEARCHED, compute)
        for at in range(0, len(queries), RANKED):
            part = slice(at, at + RANKED)
            own = pool.starts[queries[part][0]], pool.starts[queries[part][-1] + 1]
            first, last = own - pool.starts[start]
            candidates = Candidates(block["scores"][part], block["indices"][part])
            yield Ranking(queries[part], candidates, block["positives"][first:last])


def rescored(
    rankings: Iterable[Ranking],
    score: Callable[[list[tuple[str, str]]], np.ndarray],
    pool: Pool,
    parts: Parts,
) -> Iterator[Ranking]:
    """Yield rankings with the scores of a reranker.

    Args:
        rankings: by a first stage.
        score: function of (query, document) pairs to their scores, float32 [n].
        pool: queries and documents.
        parts: that keep the results.
    """
    for ranking in rankings:

        def compute(ranking: Ranking = ranking) -> dict[str, np.ndarray]:
            at, column = np.nonzero(ranking.candidates.indices != NONE)
            queries, documents = pool.pairs(ranking.queries)
            queries = np.append(ranking.queries[at], queries)
            documents = np.append(ranking.candidates.indices[at, column], documents)
            pairs = zip(queries, documents, strict=True)
            scores = score([(pool.queries[q], pool.documents[d]) for q, d in pairs])
            result = np.full(ranking.candidates.scores.shape, -np.inf, np.float32)
            result[at, column] = scores[: len(at)]
            return {"scores": result, "positives": scores[len(at) :]}

        arrays = parts.get(int(ranking.queries[0]) // RANKED, compute)
        candidates = ranking.candidates._replace(scores=arrays["scores"])
        yield Ranking(ranking.queries, candidates, arrays["positives"])

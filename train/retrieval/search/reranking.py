"""Rerank the first documents of every query, resumably: by a reranker, or by similarities."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np

from modernbert_jax.io.progress import Progress

from ..blocks import take
from ..data import Run
from ..parts import Parts
from ..retriever import Retriever

PAIRS = 4096
"""Pairs of representations that are compared at a time."""

QUERIES = 32
"""Queries of a part, whose scores are stored together."""


class Scorer(Protocol):
    """A reranker, such as `encoding.PairScorer`."""

    def blocks(self, pairs: Iterable[tuple[str, str]]) -> Iterable[np.ndarray]:
        """Scores of (query, document) pairs in order: float32 [n] each."""


@dataclasses.dataclass(frozen=True)
class SimilarityScorer:
    """A model that represents texts as a reranker: scores are similarities."""

    retriever: Retriever

    def blocks(self, pairs: Iterable[tuple[str, str]]) -> Iterator[np.ndarray]:
        """As `Scorer`; each text is represented once."""
        pairs = [*pairs]
        queries, query_of = distinct(query for query, _ in pairs)
        documents, document_of = distinct(document for _, document in pairs)
        a = self.retriever.encode(queries, "query")
        b = self.retriever.encode(documents, "document")
        for start in range(0, len(pairs), PAIRS):
            at = slice(start, start + PAIRS)
            yield self.retriever.pairs(take(a, query_of[at]), take(b, document_of[at]))


def rerank(
    scorer: Scorer,
    run: Mapping[str, Mapping[str, float]],
    queries: Mapping[str, str],
    documents: Mapping[str, str],
    top: int,
    parts: Parts | None = None,
) -> Run:
    """The first documents of every query with the scores of a reranker, best first.

    Equal scores keep the order of the first stage. Documents after the first `top` are left out.

    Args:
        scorer: the reranker.
        run: scores by a first stage.
        queries: texts by id.
        documents: texts by id, of the first documents at least; see `first`.
        top: documents of each query to rerank.
        parts: keeps the scores of every `QUERIES` queries; None keeps none.
    """
    chosen = {query: first(scores, top) for query, scores in run.items()}
    names, reranked = [*chosen], {}
    with Progress(len(names), of="query") as progress:
        for start in range(0, len(names), QUERIES):
            block = names[start : start + QUERIES]
            pairs = [(queries[q], documents[d]) for q in block for d in chosen[q]]

            def compute(pairs: list[tuple[str, str]] = pairs) -> dict[str, np.ndarray]:
                return {"scores": np.concatenate([np.zeros(0, "f4"), *scorer.blocks(pairs)])}

            stored: Callable[[], dict[str, np.ndarray]] = compute
            arrays = parts.get(start // QUERIES, stored) if parts else compute()
            scores = iter(arrays["scores"].tolist())
            for query in block:
                scored = [(document, next(scores)) for document in chosen[query]]
                reranked[query] = dict(sorted(scored, key=lambda pair: -pair[1]))
            progress.update("rerank", start + len(block))
    return reranked


def distinct(texts: Iterable[str]) -> tuple[list[str], np.ndarray]:
    """Distinct texts in their order, and the number of each text among them."""
    numbers: dict[str, int] = {}
    of = np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)
    return [*numbers], of


def first(scores: Mapping[str, float], top: int) -> list[str]:
    """The documents with the highest scores; equal ones in the order of the mapping."""
    return sorted(scores, key=lambda document: -scores[document])[:top]

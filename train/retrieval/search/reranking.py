"""Rerank the first documents of every query by a reranker, resumably."""

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

import numpy as np

from modernbert_jax.io.progress import Progress

from ..data import Run
from ..parts import Parts

QUERIES = 32
"""Queries of a part, whose scores are stored together."""


class Scorer(Protocol):
    """A reranker, such as `encoding.PairScorer`."""

    def blocks(self, pairs: Iterable[tuple[str, str]]) -> Iterable[np.ndarray]:
        """Scores of (query, document) pairs in order: float32 [n] each."""


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


def first(scores: Mapping[str, float], top: int) -> list[str]:
    """The documents with the highest scores; equal ones in the order of the mapping."""
    return sorted(scores, key=lambda document: -scores[document])[:top]

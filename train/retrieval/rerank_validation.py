"""Quality of a reranker on validation examples during training: the order of each query's list."""

import numpy as np

from ..tasks.scores import spearman
from .evaluation import RERANKING, reranking
from .texts import TextSet
from .validation import Validation, ndcg

BEST = "ndcg@10"
"""Metric of lists that chooses the best model."""

CORRELATION = "spearman"
"""Metric of labelled pairs whose queries have one document each."""


class RerankerValidation(Validation):
    """Runs a reranker over validation examples.

    Pairs of one query are one list. Lists with labels, or with a positive and negatives, have the
    metrics of sentence-transformers: `ndcg@10`, `mrr@10`, `map`. Lists with a teacher's scores have
    `ndcg@10` with gains above the least score. Labelled pairs whose queries have one document each
    have Spearman's correlation.
    """

    def values(self, dataset: TextSet, examples: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """Scores of the documents, and numbers of the pairs, float64 [n, J, 2]; NaN for none."""
        pairs = dataset.of_batch(examples)
        return np.where((pairs >= 0)[..., None], np.stack([outputs.T, pairs], -1), np.nan)

    def metrics(self, dataset: TextSet, values: np.ndarray) -> dict[str, float]:
        scores, pairs = np.moveaxis(values, -1, 0)
        grades = np.zeros(scores.shape, np.float32)
        if dataset.kind == "none":
            grades[:, 0] = 1
        grades[:, : dataset.targets.shape[1]] = dataset.targets
        if metric_of(dataset) != BEST:
            return {CORRELATION: spearman(scores[:, 0], grades[:, 0])}
        lists = _lists(dataset.texts[:, 0], scores, grades, pairs)
        lists = [(scores, own) for scores, own in lists if own.min() < own.max()]
        if any((own != np.round(own)).any() or own.min() < 0 for _, own in lists):
            return {BEST: float(np.mean([ndcg(scores, own) for scores, own in lists]))}
        means = reranking.of_lists(lists) if lists else dict.fromkeys(RERANKING, 1.0)
        return {BEST: means[BEST], **means}


def metric_of(dataset: TextSet) -> str:
    """The metric of a data set that chooses the best model."""
    queries = dataset.texts[:, 0]
    single = dataset.width == 1 and len(np.unique(queries)) == len(queries)
    return CORRELATION if single else BEST


def _lists(
    queries: np.ndarray, scores: np.ndarray, grades: np.ndarray, pairs: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Scores and grades of the documents of each query, the best grades first.

    A document of several examples counts once, with its best grade.

    Args:
        queries: number of the query of each example [N].
        scores: of the documents [N, J]; NaN for none.
        grades: of the documents [N, J].
        pairs: numbers of the pairs of query and document [N, J].
    """
    order = np.argsort(queries, kind="stable")
    ends = np.flatnonzero(np.diff(queries[order])) + 1
    lists = []
    for members in np.split(order, ends):
        exists = ~np.isnan(scores[members])
        own, graded = scores[members][exists], grades[members][exists]
        best = np.argsort(-graded, kind="stable")
        _, first = np.unique(pairs[members][exists][best], return_index=True)
        best = best[np.sort(first)]
        lists.append((own[best], graded[best]))
    return lists

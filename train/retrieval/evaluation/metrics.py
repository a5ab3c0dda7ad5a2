"""Metrics of ranked documents: names, definitions, and means over queries; equal to trec_eval's.

Documents rank by score, which counts as float32. Equal scores rank by id, the largest first. So
does trec_eval, and a model cannot gain by giving all documents one score. Documents without a
judgement are not relevant. Names are those of sentence-transformers without the similarity:
`ndcg@10` there is `cosine_ndcg@10`.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from modernbert_jax.errors import UserError, did_you_mean

from ..data import Qrels, Run
from ..data.ids import quoted

METRICS = (
    *("ndcg@10", "mrr@10", "map@100", "recall@100"),
    *(f"{name}@{k}" for name in ("accuracy", "precision", "recall") for k in (1, 3, 5, 10)),
)
"""Metrics of retrieval that are computed by default, as sentence-transformers' and `recall@100`."""

RERANKING = ("map", "mrr@10", "ndcg@10")
"""Metrics of lists to rerank that are computed by default, as in sentence-transformers."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of the first documents of a query."""

    name: str
    """A key of `FUNCTIONS`."""
    k: int | None = None
    """Number of documents; None is all of them."""

    def __str__(self) -> str:
        return self.name if self.k is None else f"{self.name}@{self.k}"

    @classmethod
    def parse(cls, text: str) -> "Metric":
        """The metric of a name such as "ndcg@10", or "map" of all documents.

        Raises:
            UserError: no such metric, or no number of 1 or more after the @.
        """
        match = re.fullmatch(r"([a-z]+)(?:@([1-9][0-9]{0,8}))?", text)
        name = match[1] if match else text.partition("@")[0]
        if name not in FUNCTIONS:
            known = did_you_mean(name.lower(), FUNCTIONS)
            raise UserError(f"metric {text!r}: must be NAME or NAME@K; {known}")
        if match is None:
            raise UserError(f"metric {text!r}: the number after @ must be 1 to 999,999,999")
        if name == "precision" and match[2] is None:
            raise UserError("metric 'precision': needs a number of documents, as precision@10")
        return cls(name, int(match[2]) if match[2] else None)

    def __call__(self, grades: np.ndarray, judged: np.ndarray) -> float:
        """The metric of one query.

        Args:
            grades: of the documents in the order of their ranks, int [n]; 0 without a judgement.
            judged: all grades of the query in descending order, int [m].
        """
        return FUNCTIONS[self.name](grades[: self.k], judged, self.k)


def ranked(scores: Mapping[str, float]) -> list[str]:
    """Documents of a query in the order of their ranks."""
    with np.errstate(over="ignore"):
        values = np.array([*scores.values()], np.float32).tolist()
    # Both in descending order; code points are in the order of their bytes in UTF-8.
    pairs = sorted(zip(values, scores, strict=True), reverse=True)
    return [document for _, document in pairs]


def by_query(
    run: Run, qrels: Qrels, metrics: Iterable[str] = METRICS, complete: bool = False
) -> dict[str, dict[str, float]]:
    """Metrics of every query that is judged, by its id and the name of the metric.

    Args:
        run: scores of documents.
        qrels: judgements.
        metrics: names that `Metric.parse` reads.
        complete: whether judged queries that are not in the run count with 0. By default they are
            left out, as by trec_eval without its option -c.

    Raises:
        UserError: an unknown metric, or a score that is not finite.
    """
    parsed = [Metric.parse(name) for name in dict.fromkeys(metrics)]
    results: dict[str, dict[str, float]] = {}
    for query, grades in qrels.items():
        if query not in run and not complete:
            continue
        scores = run.get(query, {})
        if not all(map(math.isfinite, scores.values())):
            raise UserError(f"query {quoted(query)}: has scores that are NaN or infinite")
        order = np.array([grades.get(document, 0) for document in ranked(scores)], np.int64)
        judged = np.sort(np.array([*grades.values()], np.int64))[::-1]
        results[query] = {str(metric): metric(order, judged) for metric in parsed}
    return results


def of_run(
    run: Run, qrels: Qrels, metrics: Iterable[str] = METRICS, complete: bool = False
) -> dict[str, float]:
    """Means of the metrics over queries. Arguments as `by_query`.

    Raises:
        UserError: as `by_query`, or a run without a judged query.
    """
    results = by_query(run, qrels, metrics, complete)
    if not results:
        raise UserError("no query of the run is judged; are the ids of queries the same?")
    return means([*results.values()])


def means(results: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Means of metrics by name, such as of several queries or data sets; at least one."""
    return {name: math.fsum(r[name] for r in results) / len(results) for name in results[0]}


def _ndcg(grades: np.ndarray, judged: np.ndarray, k: int | None) -> float:
    """Sum of grades, each divided by log2(rank + 1), relative to that of the best order."""
    best = _gain(judged[:k])
    return _gain(grades) / best if best else 0.0


def _gain(grades: np.ndarray) -> float:
    return float((np.maximum(grades, 0) / np.log2(np.arange(2, len(grades) + 2))).sum())


def _mrr(grades: np.ndarray, judged: np.ndarray, k: int | None) -> float:
    """1 / rank of the first relevant document; 0 if there is none."""
    relevant = np.flatnonzero(grades > 0)
    return 1 / (1 + int(relevant[0])) if relevant.size else 0.0


def _map(grades: np.ndarray, judged: np.ndarray, k: int | None) -> float:
    """Sum of the precisions at all relevant documents, divided by the number of relevant ones."""
    relevant, count = grades > 0, int((judged > 0).sum())
    precisions = np.cumsum(relevant) / np.arange(1, len(grades) + 1)
    return float(precisions[relevant].sum()) / count if count else 0.0


def _recall(grades: np.ndarray, judged: np.ndarray, k: int | None) -> float:
    """Share of the relevant documents that are found."""
    count = int((judged > 0).sum())
    return int((grades > 0).sum()) / count if count else 0.0


def _precision(grades: np.ndarray, judged: np.ndarray, k: int | None) -> float:
    """Relevant documents found, divided by k, also if fewer than k are found."""
    return int((grades > 0).sum()) / (k or 1)


def _accuracy(grades: np.ndarray, judged: np.ndarray, k: int | None) -> float:
    """1 if a relevant document is found, else 0 (`success` in trec_eval)."""
    return float((grades > 0).any())


FUNCTIONS: dict[str, Callable[[np.ndarray, np.ndarray, int | None], float]] = {
    "ndcg": _ndcg,
    "mrr": _mrr,
    "map": _map,
    "recall": _recall,
    "precision": _precision,
    "accuracy": _accuracy,
}
"""Metrics by name: functions of the grades of the first k documents in the order of their ranks, of
all judged grades in descending order, and of k."""

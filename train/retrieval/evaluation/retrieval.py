"""Search a collection with an encoder and compare the results with the judgements.

    encoder = TextEncoder.load("model")
    evaluate(encoder, read_collection("scifact"))["ndcg@10"]

During training: `evaluate(encoder.using(params), collection)`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.scoring import TopK

from ..data import Collection, Run
from ..encoding import TextEncoder
from . import metrics as metrics_
from .metrics import METRICS, Metric

DEPTH = 1000
"""Documents of a query that are searched for metrics of all documents, as usual with trec_eval."""


def evaluate(
    encoder: TextEncoder,
    collection: Collection,
    metrics: Sequence[str] = METRICS,
    *,
    exclude_self: bool = False,
) -> dict[str, float]:
    """Means of metrics over the queries of a collection, by their names.

    Every process of a run has to call it, and gets the same result.

    Args:
        encoder: the model.
        collection: what is searched.
        metrics: names that `Metric.parse` reads.
        exclude_self: whether a document with the id of the query is left out of its results, as
            for ArguAna and Quora, whose queries are in the corpus.

    Raises:
        UserError: an unknown metric, a damaged corpus, or vectors that are not finite.
    """
    k = depth(metrics)
    run = search(encoder, collection.corpus(), collection.queries, k, exclude_self=exclude_self)
    return metrics_.of_run(run, collection.qrels, metrics)


def search(
    encoder: TextEncoder,
    corpus: Iterable[tuple[str, str]],
    queries: Mapping[str, str],
    k: int,
    *,
    exclude_self: bool = False,
) -> Run:
    """The k most similar documents of every query, best first.

    Args:
        encoder: the model.
        corpus: ids and texts of documents, read once; only the ids are kept in memory.
        queries: texts by id.
        k: number of documents.
        exclude_self: see `evaluate`.

    Raises:
        UserError: an empty corpus, or vectors that are not finite.
    """
    ids: list[str] = []

    def texts() -> Iterator[str]:
        for document, text in corpus:
            ids.append(document)
            yield text

    vectors = encoder.encode(queries.values(), "query")
    best = TopK(vectors, k + exclude_self, encoder.similarity, encoder.model.runner.mesh)
    for block in encoder.blocks(texts(), "document"):
        best.add(block)
    if not ids:
        raise UserError("the corpus has no documents")
    return run_of([*queries], ids, *best.results(), k, exclude_self)


def run_of(
    queries: Sequence[str],
    documents: Sequence[str],
    scores: np.ndarray,
    numbers: np.ndarray,
    k: int,
    exclude_self: bool = False,
) -> Run:
    """A run from the results of a search.

    Args:
        queries: ids of the queries [Q].
        documents: ids of all documents.
        scores: [Q, K], best first.
        numbers: of the documents [Q, K].
        k: number of documents to keep.
        exclude_self: whether the document with the id of the query is left out.
    """
    run: Run = {}
    for query, of_query, found in zip(queries, scores.tolist(), numbers.tolist(), strict=True):
        pairs = zip((documents[i] for i in found), of_query, strict=True)
        kept = [pair for pair in pairs if not exclude_self or pair[0] != query]
        run[query] = dict(kept[:k])
    return run


def depth(metrics: Iterable[str]) -> int:
    """Number of documents for each query that metrics need. Raises `UserError` for unknown ones."""
    return max((Metric.parse(name).k or DEPTH for name in metrics), default=DEPTH)

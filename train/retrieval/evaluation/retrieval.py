"""Search a collection with an encoder and compare the results with the judgements.

    encoder = TextEncoder.load("model")
    evaluate(encoder, read_collection("scifact"))["ndcg@10"]

During training: `evaluate(encoder.using(params), collection)`.
"""

from collections.abc import Iterable, Sequence

from ..data import Collection
from ..retriever import Retriever
from ..search.exact import search
from . import metrics as metrics_
from .active import ActiveWeights
from .metrics import METRICS, Metric

DEPTH = 1000
"""Documents of a query that are searched for metrics of all documents, as usual with trec_eval."""


def evaluate(
    model: Retriever,
    collection: Collection,
    metrics: Sequence[str] = METRICS,
    *,
    exclude_self: bool = False,
) -> dict[str, float]:
    """Means of metrics over the queries of a collection, by their names.

    Of a sparse model also what `ActiveWeights` counts. Every process of a run has to call it, and
    gets the same result.

    Args:
        model: represents and compares the texts.
        collection: what is searched.
        metrics: names that `Metric.parse` reads.
        exclude_self: see `search`.

    Raises:
        UserError: an unknown metric, a damaged corpus, or representations that are not finite.
    """
    k = depth(metrics)
    active = ActiveWeights.of(model)
    shared = model, collection.corpus(), collection.queries, k
    run = search(*shared, exclude_self=exclude_self, observe=active)
    return {
        **metrics_.of_run(run, collection.qrels, metrics),
        **(active.metrics() if active else {}),
    }


def depth(metrics: Iterable[str]) -> int:
    """Number of documents for each query that metrics need. Raises `UserError` for unknown ones."""
    return max((Metric.parse(name).k or DEPTH for name in metrics), default=DEPTH)

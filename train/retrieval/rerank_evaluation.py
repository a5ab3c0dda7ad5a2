"""Evaluation of a reranker during training: the first documents of collections, ordered anew."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from jax.sharding import Mesh

from modernbert_jax import convert
from modernbert_jax.config import Runtime
from modernbert_jax.errors import UserError

from .bm25 import Bm25
from .data import Collection
from .encoding import PairScorer
from .evaluation import reranking
from .evaluation.reranking import RerankingList
from .objective import of_model

DEPTH = 100
"""Documents of a first stage that are reranked for each query, as in sentence-transformers."""


class CollectionReranker:
    """Function from parameters and a collection to the metrics of its reranked documents.

    The first stage is the collection's own (NanoBEIR has BM25's), or BM25. Relevant documents that
    it did not find are reranked too, as sentence-transformers does by default.
    """

    def __init__(self, model: convert.Checkpoint, mesh: Mesh, runtime: Runtime):
        """Prepare.

        Args:
            model: the reranker; its parameters are not used.
            mesh: the devices.
            runtime: how it is computed.
        """
        self._model, self._mesh, self._runtime = model, mesh, runtime
        self._scorer: PairScorer | None = None
        self._lists: dict[int, Sequence[RerankingList]] = {}

    def __call__(self, params: Any, collection: Collection) -> dict[str, float]:
        """Metrics by name: `map`, `mrr@10` and `ndcg@10`, as means over queries."""
        own = of_model(params)
        if self._scorer is None:
            runtime = self._runtime
            self._scorer = PairScorer.of(self._model, self._mesh, runtime=runtime, params=own)
        key = id(collection)  # names are not unique; collections live as long as the run
        if key not in self._lists:
            self._lists[key] = reranking.lists_of(with_candidates(collection), DEPTH)
        return reranking.evaluate(self._scorer.using(own), self._lists[key])


def with_candidates(collection: Collection) -> Collection:
    """The collection with the first documents of BM25, if it has none of another first stage.

    Raises:
        UserError: a damaged corpus; bm25s is needed and not installed.
    """
    if collection.candidates:
        return collection
    documents = dict(collection.corpus())
    if not documents:
        raise UserError(f"{collection.name}: the corpus has no documents")
    names, queries = [*documents], collection.queries
    best = Bm25([*documents.values()]).search([*queries.values()], DEPTH).indices
    candidates = {
        query: [names[i] for i in row if i >= 0] for query, row in zip(queries, best, strict=True)
    }
    return dataclasses.replace(collection, candidates=candidates)

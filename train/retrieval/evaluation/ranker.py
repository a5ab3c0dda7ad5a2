"""`Ranker`: the model of an evaluation, which ranks the documents of collections."""

import contextlib
from collections.abc import Iterator

from modernbert_jax.io import outputs

from ..data import Collection, Run
from ..evaluation_config import Evaluating
from ..parts import held
from ..retriever import Retriever
from ..search.config import BM25
from ..search.exact import search, search_blocks
from ..search.models import encoder_of, scorer_of
from ..search.reranking import rerank
from ..search.run import read_documents, search_bm25
from ..search.stored import StoredCorpus, facts_of
from .active import ActiveWeights
from .protocols import Settings


class Ranker:
    """Searches collections by one model, which is loaded once, and perhaps reranks."""

    def __init__(self, model: str, options: Evaluating, k: int):
        """Load the models.

        Args:
            model: an embedding model, a late-interaction or sparse one, or bm25.
            options: how.
            k: number of documents of each query.

        Raises:
            UserError: no such model, or an option that it does not have.
        """
        self._model, self._options = model, options
        self._k = max(k, options.rerank_top) if options.rerank else k
        self._scorer = scorer_of(options, options.rerank) if options.rerank else None
        self._encoder = encoder_of(options, model) if model != BM25 else None

    def run(
        self, collection: Collection, count: int, settings: Settings
    ) -> tuple[Run, dict[str, float]]:
        """The run of a collection, and the mean numbers of weights of a sparse model.

        Args:
            collection: what is searched.
            count: number of its documents.
            settings: of the collection.
        """
        queries, top = collection.queries, self._options.rerank_top
        active = ActiveWeights.of(self._encoder)
        run = self._first_stage(collection, count, settings, active)
        if self._scorer is not None:
            documents = read_documents(collection.files, run, queries, top, collection.name)
            run = rerank(self._scorer, run, queries, documents, top)
        return run, active.metrics() if active else {}

    def _first_stage(
        self, collection: Collection, count: int, settings: Settings, active: ActiveWeights | None
    ) -> Run:
        queries, k, exclude = collection.queries, self._k, settings.exclude_self
        if self._encoder is None:
            return search_bm25(collection.files, queries, k, exclude_self=exclude)
        options = self._options
        encoder = self._encoder.with_lengths(
            None if options.query_length else settings.query_length,
            None if options.max_length else settings.document_length,
        )
        if options.cache is None:
            shared = encoder, collection.corpus(), queries, k
            return search(*shared, exclude_self=exclude, observe=active)
        with _stored(options, self._model, encoder, collection, count) as stored:
            blocks = encoder, stored.blocks(), stored.ids, queries, k
            return search_blocks(*blocks, exclude_self=exclude, observe=active)


@contextlib.contextmanager
def _stored(
    options: Evaluating, model: str, encoder: Retriever, collection: Collection, count: int
) -> Iterator[StoredCorpus]:
    """The vectors of a collection in the cache, complete."""
    assert options.cache is not None
    facts = facts_of(encoder, model, options, collection.files)
    # Members of several sets may have one name, so the folder has that of the corpus, too.
    cache = outputs.check_folder(options.cache)
    with held(cache / f"{collection.name}-{facts['corpus']}") as place:
        stored = StoredCorpus(place, facts, collection.files, count)
        stored.encode(encoder)
        yield stored

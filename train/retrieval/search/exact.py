"""Exact search by a model: documents from a stream of texts, or representations that are stored."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from modernbert_jax.errors import UserError

from ..blocks import Block
from ..data import Run
from ..retriever import Retriever, Side

Observer = Callable[[Side, Block], None]
"""Sees the representations of all queries, then those of documents, block by block."""


def search(
    model: Retriever,
    corpus: Iterable[tuple[str, str]],
    queries: Mapping[str, str],
    k: int,
    *,
    exclude_self: bool = False,
    observe: Observer | None = None,
) -> Run:
    """The k best documents of every query, best first.

    Args:
        model: represents and compares the texts.
        corpus: ids and texts of documents, read once; only the ids are kept in memory.
        queries: texts by id.
        k: number of documents.
        exclude_self: whether a document with the id of the query is left out of its results, as
            for ArguAna and Quora, whose queries are in the corpus.
        observe: sees what is searched; None is nobody.

    Raises:
        UserError: an empty corpus, or representations that are not finite.
    """
    ids: list[str] = []

    def texts() -> Iterator[str]:
        for document, text in corpus:
            ids.append(document)
            yield text

    return search_blocks(
        model,
        model.blocks(texts(), "document"),
        lambda numbers: [ids[i] for i in numbers.tolist()],
        queries,
        k,
        exclude_self=exclude_self,
        observe=observe,
    )


def search_blocks(
    model: Retriever,
    blocks: Iterable[Block],
    ids: Callable[[np.ndarray], Sequence[str]],
    queries: Mapping[str, str],
    k: int,
    *,
    exclude_self: bool = False,
    observe: Observer | None = None,
) -> Run:
    """As `search`, of documents whose representations come in blocks.

    Args:
        ids: function from the numbers of documents [n], in ascending order, to their ids.
    """
    asked = model.encode(queries.values(), "query")
    if observe is not None:
        observe("query", asked)
    best = model.best(asked, k + exclude_self)
    for block in blocks:
        if observe is not None:
            observe("document", block)
        best.add(block)
    if not best.documents:
        raise UserError("the corpus has no documents")
    return run_of([*queries], *best.results(), ids, k, exclude_self)


def run_of(
    queries: Sequence[str],
    scores: np.ndarray,
    numbers: np.ndarray,
    ids: Callable[[np.ndarray], Sequence[str]],
    k: int,
    exclude_self: bool = False,
) -> Run:
    """A run from the results of a search.

    Args:
        queries: ids of the queries [Q].
        scores: [Q, K], best first.
        numbers: of the documents [Q, K]; negative ones are none.
        ids: see `search_blocks`.
        k: number of documents to keep.
        exclude_self: see `search`.
    """
    known = np.unique(numbers[numbers >= 0])
    id_of = dict(zip(known.tolist(), ids(known), strict=True))
    run: Run = {}
    for query, of_query, row in zip(queries, scores.tolist(), numbers.tolist(), strict=True):
        pairs = [(id_of[i], score) for i, score in zip(row, of_query, strict=True) if i >= 0]
        kept = [pair for pair in pairs if not exclude_self or pair[0] != query]
        run[query] = dict(kept[:k])
    return run

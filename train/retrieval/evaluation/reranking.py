"""Lists of documents for each query, ordered by a reranker or an embedding model.

    lists = read_lists("dev.jsonl")                   # query, positive, negative...
    evaluate(PairScorer.load("reranker"), lists)      # {"map": ..., "mrr@10": ..., ...}

During training: `evaluate(scorer.using(params), lists)`.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from modernbert_jax.errors import UserError

from ...tasks import Problems
from ..data import Collection, Qrels, Run, read_examples
from ..data.ids import quoted
from ..search.reranking import Scorer
from . import metrics as metrics_
from .metrics import RERANKING


@dataclasses.dataclass(frozen=True)
class RerankingList:
    """A query with documents to order."""

    query: str
    documents: tuple[str, ...]
    grades: tuple[int, ...]
    """Relevance of each document; 0 is not relevant."""


def read_lists(
    path: str | Path, columns: Sequence[str] = (), target: str | None = None
) -> list[RerankingList]:
    """Read lists from a file: a query with positives and negatives, or with labelled documents.

    Rows of one query are one list: `query positive [negative...]`, `query documents labels`, or
    `query document label`. Equal documents of a query are one.

    Args:
        path: a file of the formats that `tasks.read` reads.
        columns: of the query and the documents; see `data.read_examples`.
        target: column of labels; see `data.read_examples`.

    Raises:
        UserError: all problems of the file together, as `data.read_examples`; labels that are no
            whole numbers; or a query without positives, or with nothing else.
    """
    examples = read_examples(path, columns, target)
    grades: dict[str, dict[str, int]] = {}
    places: dict[str, str] = {}
    problems = Problems()
    for example in examples.examples:
        query, *documents = example.texts
        labels = example.target or (1, *(0 for _ in documents[1:]))
        places.setdefault(query, example.place)
        own = grades.setdefault(query, {})
        for document, label in zip(documents, labels, strict=True):
            with problems.at(example.place):
                if label != int(label) or label < 0:
                    raise UserError(f"label {label} must be a whole number of 0 or more")
            own[document] = max(int(label), own.get(document, 0))
    for query, own in grades.items():
        if not any(own.values()):
            problems.add(places[query], "the query has no positive")
        elif all(own.values()):
            problems.add(places[query], "the query has no negative, so every order is right")
    problems.check()
    return [RerankingList(q, tuple(own), tuple(own.values())) for q, own in grades.items()]


def lists_of(
    collection: Collection, depth: int = 100, positives: bool = True
) -> list[RerankingList]:
    """Lists of the first documents that the first stage of a collection found.

    Args:
        collection: with candidates, as NanoBEIR has those of BM25.
        depth: number of documents of each query.
        positives: whether relevant documents that were not found follow at the end, as
            sentence-transformers does by default.

    Raises:
        UserError: a collection without candidates, or documents that are missing in the corpus.
    """
    if not collection.candidates:
        raise UserError(
            f"{collection.name}: has no candidates to rerank; use --task retrieval with --model,"
            " which finds them, and --rerank"
        )
    chosen: dict[str, list[str]] = {}
    for query in collection.queries:
        first = collection.candidates.get(query, [])[:depth]
        relevant = [d for d, grade in collection.qrels[query].items() if grade > 0]
        chosen[query] = [*dict.fromkeys([*first, *(relevant if positives else [])])]
    texts = _texts(collection, {d for some in chosen.values() for d in some})
    return [
        RerankingList(
            collection.queries[query],
            tuple(texts[d] for d in documents),
            tuple(max(collection.qrels[query].get(d, 0), 0) for d in documents),
        )
        for query, documents in chosen.items()
    ]


def evaluate(
    scorer: Scorer, lists: Sequence[RerankingList], metrics: Sequence[str] = RERANKING
) -> dict[str, float]:
    """Means of metrics over lists, by their names.

    Every process of a run has to call it, and gets the same result.

    Args:
        scorer: the reranker, or `SimilarityScorer`.
        lists: what is ordered.
        metrics: names that `Metric.parse` reads.

    Raises:
        UserError: an unknown metric, or scores that are not finite.
    """
    pairs = ((one.query, document) for one in lists for document in one.documents)
    scores = (score for block in scorer.blocks(pairs) for score in block.tolist())
    scored = [([next(scores) for _ in one.documents], one.grades) for one in lists]
    return of_lists(scored, metrics)


def of_lists(
    lists: Iterable[tuple[Iterable[float], Iterable[int]]], metrics: Sequence[str] = RERANKING
) -> dict[str, float]:
    """Means of metrics over lists of scores and grades, by their names.

    Documents with equal scores rank in the reverse order of the list, in which positives come
    first: a model cannot gain by equal scores.

    Args:
        lists: of each query the scores of its documents, and their grades.
        metrics: names that `Metric.parse` reads.

    Raises:
        UserError: an unknown metric, or scores that are not finite.
    """
    run: Run = {}
    qrels: Qrels = {}
    for i, (scores, grades) in enumerate(lists):
        run[str(i)] = {f"{j:09d}": float(score) for j, score in enumerate(scores)}
        qrels[str(i)] = {f"{j:09d}": int(grade) for j, grade in enumerate(grades)}
    return metrics_.of_run(run, qrels, metrics)


def _texts(collection: Collection, wanted: set[str]) -> dict[str, str]:
    """Texts of some documents. Raises `UserError` for those that are missing."""
    texts = {document: text for document, text in collection.corpus() if document in wanted}
    problems = Problems()
    for document in sorted(wanted - texts.keys()):
        problems.add(collection.name, f"document {quoted(document)} is not in the corpus")
    problems.check()
    return texts

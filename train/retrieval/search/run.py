"""Search from files to a run file: resumable, and written whole or not at all."""

import contextlib
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modernbert_jax import convert
from modernbert_jax.errors import UserError, together
from modernbert_jax.io import fingerprint, outputs
from modernbert_jax.io.paths import expanded

from ...tasks import Problems
from ..bm25 import Bm25
from ..data import Run, beir, ids, read_run, write_run
from ..data.runs import check_word
from ..encoding import TextEncoder
from ..parts import Parts, beside, held
from ..sparse_encoding import SparseTextEncoder
from . import faiss_index, reranking, token_index
from .config import BM25, Searching
from .exact import run_of, search_blocks
from .models import encoder_of, scorer_of
from .stored import StoredCorpus, facts_of


def run_search(config: Searching) -> dict[str, Any]:
    """Search, and write the run.

    Returns:
        Numbers of "queries", "documents" of the corpus and "results"; and the folder of the
        "cache", or None where there is none.

    Raises:
        UserError: wrong input; see `Searching`.
    """
    sources = (config.corpus, config.queries, config.run_file)
    outputs.check_file(config.output, [path for path in sources if path])
    if config.index is not None:
        faiss_index.check(config.index, [path for path in sources if path])
    files = corpus_files(config.corpus)
    if not config.queries and not Path(expanded(config.corpus)).is_dir():
        raise UserError(f"{config.corpus}: is no folder with queries.jsonl; name --queries")
    queries = read_queries(config.queries or config.corpus)
    together(*(functools.partial(check_word, word) for word in (config.tag, *queries)))
    scorer = scorer_of(config, config.rerank) if config.rerank else None
    with _cache(config) as cache:
        if config.run_file:
            count, run = 0, read_run(config.run_file)
        else:
            count = ids.survey(files, check=check_word)
            run = first_stage(config, files, count, queries, cache)
        if scorer is not None:
            run = _reranked(config, scorer, files, queries, run, cache)
        write_run(config.output, run, config.tag)
    return {
        "queries": len(run),
        "documents": count,
        "results": sum(map(len, run.values())),
        "cache": str(cache) if cache else None,
    }


def corpus_files(corpus: str) -> list[str]:
    """Files of a corpus: that of a folder, or the path itself. Raises `UserError`."""
    folder = Path(expanded(corpus))
    return beir.table(folder, beir.CORPUS) if folder.is_dir() else [corpus]


def read_queries(queries: str) -> dict[str, str]:
    """Texts of queries by id, from a file or a folder.

    Raises:
        UserError: no queries, or all problems of them: damaged rows, an id of several, empty texts.
    """
    files: ids.Paths = queries
    if (folder := Path(expanded(queries))).is_dir():
        files = beir.table(folder, beir.QUERIES)
    texts = ids.read_texts(files)
    if not texts:
        raise UserError(f"{queries}: holds no queries")
    problems = Problems()
    for query, text in texts.items():
        if not text.strip():
            problems.add(queries, f"the text of query {ids.quoted(query)} is empty")
    problems.check()
    return texts


def first_stage(
    config: Searching, files: list[str], count: int, queries: Mapping[str, str], cache: Path | None
) -> Run:
    """The best documents of every query by vectors or BM25.

    Args:
        config: what searches.
        files: of the corpus.
        count: number of documents in them.
        queries: texts by id.
        cache: folder that keeps the vectors; None only for BM25.
    """
    k = max(config.top_k, config.rerank_top) if config.rerank else config.top_k
    if count == 0:
        raise UserError(f"{config.corpus}: has no documents")
    if config.model == BM25:
        return search_bm25(files, queries, k, exclude_self=config.exclude_self)
    assert cache is not None
    encoder = encoder_of(config, config.model)
    if config.index is not None:
        if isinstance(encoder, SparseTextEncoder):
            raise UserError("--index is not for sparse models; leave it out, for an exact search")
        if isinstance(encoder, TextEncoder):
            faiss_index.library(encoder.similarity)
        else:
            token_index.library()
    facts = facts_of(encoder, config.model, config, files, config.stored)
    corpus = StoredCorpus(cache, facts, files, count)
    corpus.encode(encoder)
    if config.index is not None:
        own: dict[str, Any] = {"exclude_self": config.exclude_self}
        if not isinstance(encoder, TextEncoder):
            shared = encoder, corpus, queries, k
            return token_index.search_index(config.index, config, facts, *shared, **own)
        return faiss_index.search_index(
            *(config.index, config.index_type, facts, encoder, corpus, queries, k), **own
        )
    return search_blocks(
        encoder, corpus.blocks(), corpus.ids, queries, k, exclude_self=config.exclude_self
    )


def search_bm25(
    files: ids.Paths, queries: Mapping[str, str], k: int, *, exclude_self: bool = False
) -> Run:
    """The k best documents of every query by BM25, of those with a term in common."""
    names, texts = zip(*ids.texts(files), strict=True)
    found = Bm25(texts).search([*queries.values()], k + exclude_self)
    return run_of(
        [*queries],
        found.scores,
        found.indices,
        lambda numbers: [names[i] for i in numbers.tolist()],
        k,
        exclude_self,
    )


def _reranked(
    config: Searching,
    scorer: reranking.Scorer,
    files: list[str],
    queries: Mapping[str, str],
    run: Run,
    cache: Path | None,
) -> Run:
    """The run with the scores of the reranker."""
    top = config.rerank_top
    documents = read_documents(files, run, queries, top, config.corpus)
    facts = {
        "model": fingerprint.of_paths([convert.locate(config.rerank)])[:16],
        "corpus": fingerprint.of_paths(files)[:16],
        "queries": fingerprint.of_json(queries),
        "candidates": fingerprint.of_json({q: reranking.first(s, top) for q, s in run.items()}),
        "max_length": config.max_length,
        "dtype": config.dtype,
        "weights": config.weights,
        "part": reranking.QUERIES,
    }
    parts = Parts(cache, "scores", facts) if cache else None
    run = reranking.rerank(scorer, run, queries, documents, top, parts)
    return {query: dict([*scores.items()][: config.top_k]) for query, scores in run.items()}


def read_documents(
    files: ids.Paths, run: Run, queries: Mapping[str, str], top: int, name: str
) -> dict[str, str]:
    """Texts of the first documents of every query.

    Raises:
        UserError: queries or documents of the run that do not exist, all together.
    """
    wanted = {d: q for q, scores in run.items() for d in reranking.first(scores, top)}
    documents = ids.read_texts(files, wanted)
    problems = Problems()
    for query in run:
        if query not in queries:
            problems.add(f"query {ids.quoted(query)}", "is in the run, and not among the queries")
    for document, query in wanted.items():
        if document not in documents:
            problems.add(f"query {ids.quoted(query)}", ids.missing_id(document, name))
    problems.check()
    return documents


@contextlib.contextmanager
def _cache(config: Searching) -> Iterator[Path | None]:
    """The folder that keeps vectors and scores, locked; None where nothing is kept."""
    if config.model == BM25 and not config.rerank:
        yield None
        return
    with held(config.cache or beside(config.output)) as cache:
        yield cache

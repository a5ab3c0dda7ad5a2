"""Mine hard negatives from start to end: resumable, in bounded memory, to one new file."""

from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.io import fingerprint, outputs
from modernbert_jax.io.progress import Progress

from ...examples.config import check_file
from ..candidates import NONE
from ..data import folders, read_examples
from ..encoding import PairScorer
from ..parts import Parts, beside, held
from ..search.config import BM25
from ..search.models import encoder_of
from . import pool, rows, stages
from .config import Mining
from .encoded import EncodedSearcher
from .pool import Pool
from .report import Report
from .rows import Scored
from .select import select
from .stages import Ranking


def mine(config: Mining) -> dict[str, Any]:
    """Mine hard negatives, and write them as a data set that `read_examples` reads.

    Returns:
        The summary of `Report`, with the folder of the cache.

    Raises:
        UserError: wrong input; see `Mining` and `pool.build`.
    """
    config.check()
    for name in ("data", "corpus"):
        check_file(name, getattr(config, name))
    outputs.check_file(config.output, [path for path in (config.data, config.corpus) if path])
    with held(config.cache or beside(config.output)) as cache:
        scorer = _scorer(config)
        texts, key = _pool(config, cache)
        rankings, ranked_key = _ranked(config, cache, texts, key)
        if scorer is not None:
            rankings = _rescored(config, scorer, cache, texts, rankings, ranked_key)
        summary = _write(config, texts, rankings)
    return summary | {"cache": str(cache)}


def _scorer(config: Mining) -> PairScorer | None:
    """The reranker, if there is one."""
    if not config.cross_encoder:
        return None
    return PairScorer.load(
        config.cross_encoder, dtype=config.dtype, batch_tokens=config.batch_tokens
    )


def _pool(config: Mining, cache: Path) -> tuple[Pool, str]:
    """Queries and documents, and the key of what they depend on."""
    folder = folders.find(config.data)
    corpus = [config.corpus] if config.corpus else folder.corpus if folder else []
    data = [folder.rows, *folder.queries] if folder else [config.data]
    files = [fingerprint.of_paths(paths) for paths in (data, corpus) if paths]
    key = fingerprint.of_json({"files": files, "columns": config.columns})
    place = cache / f"texts-{key[:16]}"
    if not place.exists():
        examples = read_examples(config.data, config.columns, "").examples
        pool.build(place, examples, corpus, config.corpus or config.data)
    return Pool.open(place), key


def _ranked(config: Mining, cache: Path, texts: Pool, key: str) -> tuple[Iterator[Ranking], str]:
    """Rankings by the first stage, and the key of what they depend on."""
    most = texts.most_positives
    # The positives of a query, and perhaps its own text, may be among the best.
    others = most + int((texts.same != NONE).any())
    depth = min(config.window(most, bool(config.cross_encoder)) + others, len(texts.documents))
    facts: dict[str, Any] = {"depth": depth, "searched": stages.SEARCHED}

    if config.model == BM25:
        parts = Parts(cache, "candidates", facts | {"texts": key, "model": BM25})
        return stages.ranked(lambda: stages.Bm25Searcher.of(texts), texts, depth, parts), parts.key
    encoder = encoder_of(config, config.model)
    own = {"texts": key, "model": _model_key(config.model), "dtype": config.dtype}
    searcher = EncodedSearcher.of(encoder, texts, cache, own)
    searcher.encode()
    parts = Parts(cache, "candidates", facts | {"vectors": searcher.key})
    return stages.ranked(lambda: searcher, texts, depth, parts), parts.key


def _rescored(
    config: Mining,
    scorer: PairScorer,
    cache: Path,
    texts: Pool,
    rankings: Iterable[Ranking],
    key: str,
) -> Iterator[Ranking]:
    """Rankings with the scores of the reranker."""
    model = _model_key(config.cross_encoder)
    facts = {"candidates": key, "model": model, "dtype": config.dtype, "ranked": stages.RANKED}
    parts = Parts(cache, "scores", facts)

    def score(pairs: list[tuple[str, str]]) -> np.ndarray:
        return np.concatenate([*scorer.blocks(pairs)])

    return stages.rescored(rankings, score, texts, parts)


def _model_key(model: str) -> str:
    return fingerprint.of_paths([convert.locate(model)])


def _write(config: Mining, texts: Pool, rankings: Iterable[Ranking]) -> dict[str, Any]:
    """Choose the negatives of all queries, write the rows, and sum up."""
    report, total = Report(), len(texts.queries)
    window = config.window(texts.most_positives, bool(config.cross_encoder))
    with rows.writer(config.output) as write, Progress(total, of="query") as progress:
        for ranking in rankings:
            for row in _rows(config, texts, ranking, window, report):
                write(row)
                report.rows += 1
            progress.update("mine", int(ranking.queries[-1]) + 1, f"{report.rows:,} rows")
        if not report.rows:
            raise UserError(
                "no query has enough negatives; relax the rules, or name a larger --corpus"
            )
    return report.summary()


def _rows(
    config: Mining, texts: Pool, ranking: Ranking, window: int, report: Report
) -> Iterator[rows.Row]:
    """The rows of some queries."""
    counts = np.diff(texts.starts[np.append(ranking.queries, ranking.queries[-1] + 1)])
    positive_scores = np.split(ranking.positives, np.cumsum(counts)[:-1])
    same = [texts.same[[query]] for query in ranking.queries]
    excluded = same if config.include_positives else map(texts.excluded, ranking.queries)
    chosen = select(
        ranking.candidates,
        [*excluded],
        positive_scores,
        config,
        window,
        int(ranking.queries[0]),
        report.dropped,
    )
    for query, own, scores, indices in zip(
        ranking.queries, positive_scores, chosen.scores, chosen.indices, strict=True
    ):
        positives = dict(zip(texts.positives_of(query).tolist(), own, strict=True))
        best = {d: s for d, s in zip(indices.tolist(), scores, strict=True) if d != NONE}
        report.add(own, [score for d, score in best.items() if d not in positives])
        report.too_few += len(best) < config.num_negatives
        if config.format == "n-tuple" and len(best) < config.num_negatives:
            continue
        first = {} if config.include_positives else positives
        rest = {d: s for d, s in positives.items() if d not in best and d not in first}

        def scored(documents: dict[int, np.float32], known: Container[int]) -> list[Scored]:
            return [
                Scored(texts.documents[d], float(str(s)), d in known) for d, s in documents.items()
            ]

        yield from rows.rows(
            config.format,
            config.scores,
            texts.queries[query],
            scored(first, positives),
            scored(best | rest, positives),
        )

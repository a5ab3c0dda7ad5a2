"""What is measured of a trained model, by the same code for all sides."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax import convert, devices
from modernbert_jax.convert import run_checkpoint
from modernbert_jax.inference.text_model import Encoding
from modernbert_jax.sharding import placed

from ...retrieval.data import Run
from ...retrieval.encoding import PairScorer, TextEncoder
from ...retrieval.evaluation import evaluate, of_run
from ...retrieval.late_encoding import TokenEncoder
from .case import Case
from .settings import QUERY_TOKENS

METRICS = ("ndcg@10", "mrr@10", "recall@100")

Group = Sequence[tuple[str, str]]
"""Pairs whose documents are each other's negatives."""

SCALE = 20.0
"""Factor of the cosines in the probe, as in the loss; MaxSim has none."""


def quality(case: Case, model: str | Path) -> dict[str, float]:
    """Metrics of a model on the test: of a search, or of BM25's documents in its order."""
    if case.kind != "reranker":
        return evaluate(encoder(case, model), case.test, METRICS)
    scorer = PairScorer.load(str(model), case.settings.max_length)
    return of_run(reranked(case, scorer, case.first_stage()), case.test.qrels, METRICS)


def reranked(case: Case, scorer: PairScorer, run: Mapping[str, Mapping[str, float]]) -> Run:
    """The documents of a run with the scores of a reranker."""
    queries = case.test.queries
    pairs = [(query, document) for query, found in run.items() for document in found]
    texts = ((queries[query], case.corpus[document]) for query, document in pairs)
    scores = np.concatenate([*scorer.blocks(texts), np.zeros(0, np.float32)]).tolist()
    result: Run = {query: {} for query in run}
    for (query, document), score in zip(pairs, scores, strict=True):
        result[query][document] = score
    return result


def encoder(case: Case, model: str | Path) -> TextEncoder | TokenEncoder:
    """A model of vectors, whose texts are cut as in training."""
    encoding = Encoding(max_length=case.settings.max_length)
    if case.kind == "embedding":
        return TextEncoder.load(str(model), encoding, encoding)
    return TokenEncoder.load(str(model), Encoding(max_length=QUERY_TOKENS), encoding)


def probe_loss(case: Case, models: Mapping[int, Path]) -> dict[int, float]:
    """Mean loss of the kept groups by step, in float64, all computed by the same programs.

    A query is ranked against the documents of its group; a reranker scores its own document and
    that of the next query.

    Args:
        case: with the groups.
        models: checkpoints of one model, after different steps.
    """
    first, *others = models.values()
    groups = case.probe()
    if case.kind != "reranker":
        model = encoder(case, first)
        losses = [_ranking(model, groups)]
        losses += [_ranking(model.using(parameters(case, path)), groups) for path in others]
    else:
        scorer = PairScorer.load(str(first), case.settings.max_length)
        losses = [_labels(scorer, groups)]
        losses += [_labels(scorer.using(parameters(case, path)), groups) for path in others]
    return dict(zip(models, losses, strict=True))


def parameters(case: Case, path: Path) -> Any:
    """Parameters of a checkpoint, ours or sentence-transformers', on the devices."""
    if convert.detect(path) == "run":
        params = run_checkpoint.parameters(path)
        params = params["encoder"] if case.kind == "embedding" else params
    else:
        params = convert.load(path).params
    return placed(params, devices.local_mesh())


def _ranking(model: TextEncoder | TokenEncoder, groups: Sequence[Group]) -> float:
    flat = [pair for group in groups for pair in group]
    queries = model.encode([query for query, _ in flat], "query")
    documents = model.encode([document for _, document in flat], "document")
    losses, start = [], 0
    for group in groups:
        own = slice(start, start := start + len(group))
        logits = _logits(queries[own], documents[own])
        losses.append(np.mean(np.logaddexp.reduce(logits, axis=1) - np.diag(logits)))
    return float(np.mean(losses))


def _logits(queries: Any, documents: Any) -> np.ndarray:
    """Scores as the loss has them, float64: of vectors [n, E], or of lists of token vectors."""
    if isinstance(queries, list):
        products = (
            [(query.astype(np.float64) @ document.T).max(1).sum() for document in documents]
            for query in queries
        )
        return np.array([*products])
    queries, documents = (
        x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        for x in (queries, documents)
    )
    return SCALE * queries @ documents.T


def _labels(model: PairScorer, groups: Sequence[Group]) -> float:
    losses = []
    for group in groups:
        negatives = [(query, group[(i + 1) % len(group)][1]) for i, (query, _) in enumerate(group)]
        scores = np.concatenate([*model.blocks([*group, *negatives])]).astype(np.float64)
        signs = np.repeat([-1.0, 1.0], len(group))
        losses.append(np.mean(np.logaddexp(0.0, signs * scores)))
    return float(np.mean(losses))

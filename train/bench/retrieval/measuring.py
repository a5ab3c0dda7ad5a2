"""What is measured of a trained model, by the same code for all sides."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax import convert, devices, late_interaction
from modernbert_jax.convert import run_checkpoint
from modernbert_jax.inference.text_model import Encoding
from modernbert_jax.sharding import placed

from ...retrieval.data import Run
from ...retrieval.encoding import PairScorer, TextEncoder
from ...retrieval.evaluation import evaluate, of_run
from ...retrieval.late_encoding import TokenEncoder
from ...retrieval.on_devices import RetrieverOnDevices
from ...retrieval.sparse_encoding import SparseTextEncoder
from .case import Case
from .products import sparse_products
from .settings import QUERY_TOKENS

METRICS = ("ndcg@10", "mrr@10", "recall@100")

ENCODERS: Mapping[str, type[RetrieverOnDevices]] = {
    "embedding": TextEncoder,
    "sparse": SparseTextEncoder,
    "late-interaction": TokenEncoder,
}
"""What represents texts, by the kind of a run; a reranker does not."""

Group = Sequence[tuple[str, str]]
"""Pairs whose documents are each other's negatives."""

SCALE = 20.0
"""Factor of the cosines in the probe, as in the loss; MaxSim and sparse vectors have none."""


def quality(case: Case, path: str | Path) -> dict[str, float]:
    """Metrics of a model on the test: of a search, or of BM25's documents in its order."""
    model = load(case, path)
    if isinstance(model, PairScorer):
        return of_run(reranked(case, model, case.first_stage()), case.test.qrels, METRICS)
    return evaluate(model, case.test, METRICS)


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


def load(case: Case, path: str | Path) -> Any:
    """A reranker or a model that represents texts, which are cut as in training."""
    longest = case.settings.max_length
    if case.facts.trains == "reranker":
        return PairScorer.load(str(path), longest)
    query = QUERY_TOKENS if case.facts.trains == "late-interaction" else longest
    lengths = Encoding(max_length=query), Encoding(max_length=longest)
    return ENCODERS[case.facts.trains].load(str(path), *lengths)


def probe_loss(case: Case, models: Mapping[int, Path]) -> dict[int, float]:
    """Mean loss of the kept groups by step, in float64, all computed by the same programs.

    Args:
        case: with the groups.
        models: checkpoints of one model, after different steps.
    """
    first, *others = models.values()
    model, loss = load(case, first), LOSSES[case.facts.loss](case)
    losses = [loss(model), *(loss(model.using(parameters(case, path))) for path in others)]
    return dict(zip(models, losses, strict=True))


def parameters(case: Case, path: Path) -> Any:
    """Parameters of a checkpoint, ours or sentence-transformers', on the devices."""
    if convert.detect(path) == "run":
        params = run_checkpoint.parameters(path)
        params = params["encoder"] if case.facts.trains == "embedding" else params
    else:
        params = convert.load(path).params
    return placed(params, devices.local_mesh())


def _ranking(case: Case) -> Callable[[Any], float]:
    """A query is ranked against the documents of its group."""
    groups = case.groups()
    flat = [pair for group in groups for pair in group]

    def loss(model: Any) -> float:
        queries = model.encode([query for query, _ in flat], "query")
        documents = model.encode([document for _, document in flat], "document")
        scores = sparse_products if isinstance(model, SparseTextEncoder) else _logits
        losses, start = [], 0
        for group in groups:
            own = slice(start, start := start + len(group))
            logits = scores(queries[own], documents[own])
            losses.append(np.mean(np.logaddexp.reduce(logits, axis=1) - np.diag(logits)))
        return float(np.mean(losses))

    return loss


def _logits(queries: Any, documents: Any) -> np.ndarray:
    """Scores as the loss has them, float64: of vectors [n, E], or of lists of token vectors."""
    if isinstance(queries, list):
        return late_interaction.maxsim(queries, documents).astype(np.float64)
    queries, documents = (
        x / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
        for x in (queries, documents)
    )
    return SCALE * queries @ documents.T


def _labels(case: Case) -> Callable[[PairScorer], float]:
    """A reranker scores the document of a query, and that of the next query of its group."""
    groups = case.groups()

    def loss(model: PairScorer) -> float:
        losses = []
        for group in groups:
            others = [(query, group[(i + 1) % len(group)][1]) for i, (query, _) in enumerate(group)]
            scores = np.concatenate([*model.blocks([*group, *others])]).astype(np.float64)
            signs = np.repeat([-1.0, 1.0], len(group))
            losses.append(np.mean(np.logaddexp(0.0, signs * scores)))
        return float(np.mean(losses))

    return loss


def _divergence(case: Case) -> Callable[[Any], float]:
    """The distribution over the documents of a list is compared with the teacher's."""
    _, texts, targets = case.held_out()
    teacher = _log_softmax(np.array(targets, np.float64))
    flat = [document for _, *documents in texts for document in documents]

    def loss(model: Any) -> float:
        queries = model.encode([query for query, *_ in texts], "query")
        repeated = [query for query in queries for _ in range(teacher.shape[1])]
        scores = model.pairs(repeated, model.encode(flat, "document"))
        student = _log_softmax(scores.astype(np.float64).reshape(teacher.shape))
        return float((np.exp(teacher) * (teacher - student)).sum(1).mean())

    return loss


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)


LOSSES: Mapping[str, Callable[[Case], Callable[[Any], float]]] = {
    "multiple-negatives-ranking": _ranking,
    "binary-cross-entropy": _labels,
    "distill-kl": _divergence,
}
"""The probe of each loss: a function from a case to one from a model to its loss."""

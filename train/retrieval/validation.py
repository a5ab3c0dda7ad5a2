"""Loss and ranking quality on validation examples during training."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.scoring import SIMILARITIES

from ..tasks.scores import spearman
from . import batches
from .batches import Batches
from .data import Targets
from .objective import RetrievalObjective
from .texts import TextSet

DEPTH = 10
"""Documents of a list that its nDCG looks at."""

Scores = Callable[[np.ndarray], np.ndarray]
"""Function from outputs of a batch, [J, n, ...], to scores of the documents, [n, n, K] or [n, K]:
of every query with the documents of all examples, or with its own."""


class Quality(NamedTuple):
    """Result of a validation."""

    loss: float
    """Mean loss over the examples of all data sets."""
    metrics: Mapping[str, float]
    """The metrics of each data set by their names, such as `accuracy`; with several data sets also
    by `METRIC/DATASET`, and their mean without it."""
    score: float
    """Mean of the first metric of each data set, NaN without any; chooses the best model."""


class Validation(abc.ABC):
    """Runs a model over validation examples, with its compiled program."""

    def __init__(self, objective: RetrievalObjective, examples: Batches, mesh: Mesh):
        """Prepare.

        Args:
            objective: what is trained.
            examples: the examples.
            mesh: the devices; may be empty.
        """
        whole = None if mesh.empty else NamedSharding(mesh, P())
        self._examples, self._mesh = examples, mesh
        self._evaluated = jax.jit(objective.evaluated, out_shardings=whole)

    @abc.abstractmethod
    def values(self, dataset: TextSet, examples: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        """What the metrics of a data set are computed from, [n, ...]; n may be smaller.

        Args:
            dataset: the data set.
            examples: numbers of the examples of a batch, [n].
            outputs: of their sequences, [J, n, ...].
        """

    @abc.abstractmethod
    def metrics(self, dataset: TextSet, values: np.ndarray) -> dict[str, float]:
        """The metrics of a data set from the values of all its examples, the most telling first."""

    def __call__(self, params: Any) -> Quality:
        """Loss and metrics of the model with these parameters."""
        sets = self._examples.sets
        of_sets: list[list[np.ndarray]] = [[] for _ in sets]
        loss, count = 0.0, 0
        for members, batch in batches.in_order(self._examples):
            dataset, size = sets[members.dataset], len(members.examples)
            outputs, mean = self._evaluated(params, batches.place(batch, self._mesh))
            loss, count = loss + float(mean) * size, count + size
            outputs = np.asarray(outputs)[: dataset.width, :size]
            of_sets[members.dataset].append(self.values(dataset, members.examples, outputs))
        found = [
            (dataset.name, self.metrics(dataset, values))
            for dataset, own in zip(sets, of_sets, strict=True)
            if len(values := np.concatenate(own))
        ]
        metrics: dict[str, float] = {}
        for metric in dict.fromkeys(metric for _, own in found for metric in own):
            metrics[metric] = float(np.mean([own[metric] for _, own in found if metric in own]))
        if len(found) > 1:
            metrics |= {f"{metric}/{name}": x for name, own in found for metric, x in own.items()}
        score = float(np.mean([next(iter(own.values())) for _, own in found])) if found else np.nan
        return Quality(loss / max(count, 1), metrics, score)


class RankingValidation(Validation):
    """Runs a model that compares every query with all documents over validation examples."""

    def __init__(
        self, objective: RetrievalObjective, examples: Batches, mesh: Mesh, scores: Scores
    ):
        """Prepare; see `Validation`. `scores` gives those of a batch from its outputs."""
        super().__init__(objective, examples, mesh)
        self._scores = scores

    def values(self, dataset: TextSet, examples: np.ndarray, outputs: np.ndarray) -> np.ndarray:
        present = dataset.of_batch(examples) >= 0
        queries, positives = dataset.texts[examples, :2].T
        right = dataset.is_positive(queries[:, None], positives)
        targets = dataset.targets[examples]
        return values(dataset.kind, self._scores(outputs), present, targets, right)

    def metrics(self, dataset: TextSet, values: np.ndarray) -> dict[str, float]:
        return {metric_of(dataset.kind): combined(dataset.kind, values)}


def metric_of(kind: Targets) -> str:
    """The metric of a data set with these targets."""
    return {"none": "accuracy", "label": "spearman", "scores": f"ndcg@{DEPTH}"}[kind]


def values(
    kind: Targets,
    scores: np.ndarray,
    present: np.ndarray,
    targets: np.ndarray,
    right: np.ndarray,
) -> np.ndarray:
    """What the metric of a data set is computed from, [n, ...]; see `combined`.

    Without targets: whether the positive has the highest score, 1 or 0, among the documents of the
    query, or of the batch where examples are pairs; examples without a negative are left out. Of
    labels: pairs of score and label. Of lists: the nDCG of each.

    Args:
        kind: what the targets are.
        scores: of the documents; see `Scores`.
        present: texts or documents that exist, bool [n, J].
        targets: of the examples, [n, M].
        right: whether the positive of an example is one of a query, too, bool [n, n].
    """
    count = len(scores)
    if scores.ndim == 3:
        every = scores[:, :, 0]
        scores = scores[np.arange(count), np.arange(count)]
        if kind == "none" and scores.shape[1] == 1:
            return _first(np.diagonal(every), np.where(right, -np.inf, every))
    documents = present[:, present.shape[1] - scores.shape[1] :]
    if kind == "label":
        return np.stack([scores[:, 0], targets[:, 0]], 1)
    scores = np.where(documents, scores, -np.inf)
    if kind == "none":
        return _first(scores[:, 0], scores[:, 1:])
    return np.array(
        [ndcg(s[d], t[: len(d)][d]) for s, d, t in zip(scores, documents, targets, strict=True)]
    )


def _first(positives: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether scores [n] are above all others [n, K], for those that have others; -inf is none."""
    best = others.max(1, initial=-np.inf)
    exists = best > -np.inf
    return positives[exists] > best[exists]


def combined(kind: Targets, of_examples: np.ndarray) -> float:
    """The metric of a data set from the values of its examples."""
    return spearman(*of_examples.T) if kind == "label" else float(np.mean(of_examples))


def ndcg(scores: np.ndarray, grades: np.ndarray) -> float:
    """nDCG of the first `DEPTH` documents by score; gains are grades above the least one."""
    if len(grades) == 0 or (gains := grades - grades.min()).max() == 0:
        return 1.0
    discounts = 1 / np.log2(np.arange(2, 2 + min(len(gains), DEPTH)))
    best = np.sort(gains)[::-1][:DEPTH] @ discounts
    order = np.argsort(-scores, kind="stable")[:DEPTH]
    return float(gains[order] @ discounts / best)


def of_vectors(similarity: str) -> Scores:
    """Scores [n, n, K] of vectors [J, n, E]: those of queries with all documents of the batch."""
    function = SIMILARITIES[similarity]

    def scores(vectors: np.ndarray) -> np.ndarray:
        query, *documents = vectors
        return np.stack([function(query, own) for own in documents], axis=-1)

    return scores


def of_every_score(scores: np.ndarray) -> np.ndarray:
    """Scores [n, n, K] of every query from those of late interaction, [K, n, N]."""
    return scores.transpose(2, 1, 0)[: scores.shape[1]]

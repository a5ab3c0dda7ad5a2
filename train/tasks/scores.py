"""Metrics of labels and numbers, with the definitions and edge cases of scikit-learn and scipy.

A share of nothing is 0, and so is a correlation with a constant.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

AVERAGED = tuple(
    f"{score}_{average}"
    for score in ("f1", "precision", "recall")
    for average in ("macro", "micro", "weighted")
)
"""Keys of `averages`."""

SAME_AS_ACCURACY = ("f1_micro", "precision_micro", "recall_micro", "recall_weighted")
"""Averages that equal the accuracy where every example has one label and one prediction."""

LABEL_METRICS = (
    "accuracy",
    *(name for name in AVERAGED if name not in SAME_AS_ACCURACY),
    "matthews_correlation",
)
"""Keys of `label_metrics` for any number of classes."""


class ClassCounts(NamedTuple):
    """True positives, predictions and actual occurrences: each [K], or a number."""

    hits: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray

    def sum(self) -> "ClassCounts":
        """Sums over all classes."""
        return ClassCounts(*(x.sum() for x in self))

    def scores(self) -> dict[str, np.ndarray]:
        """F1, precision and recall: each [K], or a number."""
        return {
            "f1": share(2 * self.hits, self.predicted + self.actual),
            "precision": share(self.hits, self.predicted),
            "recall": share(self.hits, self.actual),
        }


def share(part: ArrayLike, whole: ArrayLike) -> np.ndarray:
    """part / whole in float64, and 0 where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part + whole), where=whole != 0)


def confusion(actual: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """Confusion matrix: how often class i was predicted as class j, int64 [K, K]."""
    pairs = np.asarray(actual, np.int64) * classes + np.asarray(predicted, np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def label_metrics(
    actual: Sequence[int], predicted: Sequence[int], classes: int
) -> dict[str, float]:
    """Metrics of single labels; with two classes also those of the second one, the positive.

    As in scikit-learn, macro and weighted means are over the classes that occur in either argument.
    Averages that equal the accuracy are left out.
    """
    matrix = confusion(actual, predicted, classes)
    counts = ClassCounts(np.diagonal(matrix), matrix.sum(0), matrix.sum(1))
    metrics = {"accuracy": float(share(counts.hits.sum(), matrix.sum()))}
    if classes == 2:
        metrics |= {name: float(values[1]) for name, values in counts.scores().items()}
    for name, value in averages(counts).items():
        if name not in SAME_AS_ACCURACY:
            metrics[name] = value
    return metrics | {"matthews_correlation": matthews(matrix)}


def averages(counts: ClassCounts, absent: bool = False) -> dict[str, float]:
    """Macro, micro and weighted F1, precision and recall.

    Args:
        counts: Counts of each class.
        absent: Whether means include the classes that do not occur.
    """
    occurs = (counts.predicted + counts.actual > 0) | absent
    present = ClassCounts(*(x[occurs] for x in counts))
    total, metrics = counts.sum().scores(), {}
    for name, values in present.scores().items():
        metrics[f"{name}_macro"] = float(values.mean()) if values.size else 0.0
        metrics[f"{name}_micro"] = float(total[name])
        weighted = share((values * present.actual).sum(), present.actual.sum())
        metrics[f"{name}_weighted"] = float(weighted)
    return metrics


def matthews(matrix: np.ndarray) -> float:
    """Matthews' correlation of a confusion matrix [K, K] (Gorodkin's for more than two classes)."""
    matrix = matrix.astype(np.float64)
    n, hits = matrix.sum(), np.trace(matrix)
    actual, predicted = matrix.sum(1), matrix.sum(0)
    covariance = hits * n - actual @ predicted
    spread = np.sqrt(n * n - actual @ actual) * np.sqrt(n * n - predicted @ predicted)
    return float(share(covariance, spread))


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson's correlation."""
    a, b = (np.asarray(v, np.float64) - np.mean(np.asarray(v), dtype=np.float64) for v in (x, y))
    # Scaled first, so that squares of very small or very large numbers neither vanish nor overflow.
    a, b = (share(v, np.abs(v).max(initial=0.0)) for v in (a, b))
    return float(np.clip(share(a @ b, np.sqrt(a @ a) * np.sqrt(b @ b)), -1, 1))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's correlation of ranks."""
    return pearson(ranks(x), ranks(y))


def ranks(values: ArrayLike) -> np.ndarray:
    """Ranks from 1; equal values share their mean rank."""
    _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def auroc(actual: Sequence[int], scores: Sequence[float]) -> float:
    """Probability that a positive scores above a negative; ties count half, 0 without both."""
    positives = np.asarray(actual, bool)
    positive = int(positives.sum())
    negative = positives.size - positive
    above = ranks(scores)[positives].sum() - positive * (positive + 1) / 2
    return float(share(above, positive * negative))


def grouped(
    groups: Iterable[str], actual: Sequence[int], predicted: Sequence[int]
) -> dict[str, float]:
    """MultiRC's metrics: F1 of positive answers, and share of questions with all answers right."""
    truths, guesses = np.asarray(actual), np.asarray(predicted)
    right: dict[str, bool] = {}
    for group, one in zip(groups, truths == guesses, strict=True):
        right[group] = right.get(group, True) and bool(one)
    hits = ((truths == 1) & (guesses == 1)).sum()
    f1a = float(share(2 * hits, guesses.sum() + truths.sum()))
    exact = float(share(sum(right.values()), len(right)))
    return {"f1a": f1a, "exact_match": exact, "multirc": (f1a + exact) / 2}

"""Metrics of labels and numbers, with the definitions and edge cases of scikit-learn and scipy.

A share of nothing is 0, and so is a correlation with something that never changes.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np


class ClassCounts(NamedTuple):
    """True positives, what was predicted and what is so, each [K] or a number."""

    hits: np.ndarray
    predicted: np.ndarray
    actual: np.ndarray

    def sum(self) -> "ClassCounts":
        """Over all classes."""
        return ClassCounts(*(x.sum() for x in self))

    @property
    def precision(self) -> np.ndarray:
        return share(self.hits, self.predicted)

    @property
    def recall(self) -> np.ndarray:
        return share(self.hits, self.actual)

    @property
    def f1(self) -> np.ndarray:
        return share(2 * self.hits, self.predicted + self.actual)


def share(part, whole) -> np.ndarray:
    """part / whole in float64, and 0 where whole is 0."""
    part, whole = np.asarray(part, np.float64), np.asarray(whole, np.float64)
    return np.divide(part, whole, out=np.zeros_like(part + whole), where=whole != 0)


def confusion(actual: Sequence[int], predicted: Sequence[int], classes: int) -> np.ndarray:
    """How often class i was taken for class j: int64 [K, K]."""
    actual, predicted = np.asarray(actual, np.int64), np.asarray(predicted, np.int64)
    flat = np.bincount(actual * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def label_metrics(actual: Sequence[int], predicted: Sequence[int], classes: int) -> dict:
    """Metrics of single labels; with two classes also those of the second one, the positive.

    Macro and weighted means are over the classes that occur in either argument, as scikit-learn
    has it; micro averages are all equal to the accuracy.
    """
    matrix = confusion(actual, predicted, classes)
    counts = ClassCounts(np.diagonal(matrix), matrix.sum(0), matrix.sum(1))
    found = {"accuracy": float(share(counts.hits.sum(), matrix.sum()))}
    if classes == 2:
        positive = ClassCounts(*(x[1] for x in counts))
        found |= {k: float(getattr(positive, k)) for k in ("f1", "precision", "recall")}
    return found | averages(counts) | {"matthews_correlation": matthews(matrix)}


LABEL_METRICS = (
    "accuracy",
    "f1_macro",
    "f1_micro",
    "f1_weighted",
    "precision_macro",
    "precision_micro",
    "precision_weighted",
    "recall_macro",
    "recall_micro",
    "recall_weighted",
    "matthews_correlation",
)
"""What `label_metrics` gives for any number of classes."""


def averages(counts: ClassCounts, absent: bool = False) -> dict[str, float]:
    """Macro, micro and weighted F1, precision and recall, of the classes that occur or of all."""
    occurs = (counts.predicted + counts.actual > 0) | absent
    present = ClassCounts(*(x[occurs] for x in counts))
    found = {}
    for key in ("f1", "precision", "recall"):
        each = getattr(present, key)
        found[f"{key}_macro"] = float(each.mean()) if each.size else 0.0
        found[f"{key}_micro"] = float(getattr(counts.sum(), key))
        found[f"{key}_weighted"] = float(share((each * present.actual).sum(), present.actual.sum()))
    return found


def matthews(matrix: np.ndarray) -> float:
    """Matthews' correlation of a confusion matrix [K, K] (Gorodkin's for more than two)."""
    matrix = matrix.astype(np.float64)
    n, hits = matrix.sum(), np.trace(matrix)
    actual, predicted = matrix.sum(1), matrix.sum(0)
    together = hits * n - actual @ predicted
    spread = np.sqrt(n * n - actual @ actual) * np.sqrt(n * n - predicted @ predicted)
    return float(share(together, spread))


def pearson(x: Sequence[float], y: Sequence[float]) -> float:
    """Correlation of two lists of numbers."""
    x, y = (np.asarray(v, np.float64) - np.mean(v, dtype=np.float64) for v in (x, y))
    # Scaled first, so that squares of very small or very large numbers survive.
    x, y = (share(v, np.abs(v).max(initial=0.0)) for v in (x, y))
    return float(np.clip(share(x @ y, np.sqrt(x @ x) * np.sqrt(y @ y)), -1, 1))


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Correlation of ranks."""
    return pearson(ranks(x), ranks(y))


def ranks(values: Sequence[float]) -> np.ndarray:
    """Ranks from 1; equal values share the mean of theirs."""
    _, place, count = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    return (last - (count - 1) / 2)[place]


def auroc(actual: Sequence[int], scores: Sequence[float]) -> float:
    """Chance that a positive scores above a negative, ties counting half; 0 without both."""
    actual = np.asarray(actual, bool)
    positive = int(actual.sum())
    negative = actual.size - positive
    above = ranks(scores)[actual].sum() - positive * (positive + 1) / 2
    return float(share(above, positive * negative))


def grouped(
    groups: Iterable[str], actual: Sequence[int], predicted: Sequence[int]
) -> dict[str, float]:
    """MultiRC's: F1 of the positive answers, and the share of questions with all answers right."""
    actual, predicted = np.asarray(actual), np.asarray(predicted)
    right: dict[str, bool] = {}
    for group, one in zip(groups, actual == predicted, strict=True):
        right[group] = right.get(group, True) and bool(one)
    counts = ClassCounts(((actual == 1) & (predicted == 1)).sum(), predicted.sum(), actual.sum())
    f1a, exact = float(counts.f1), float(share(sum(right.values()), len(right)))
    return {"f1a": f1a, "exact_match": exact, "multirc": (f1a + exact) / 2}

"""What mining found: quantiles of scores, what each rule dropped, queries with too few."""

import collections
from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np

QUANTILES = {"min": 0.0, "25%": 0.25, "median": 0.5, "75%": 0.75, "max": 1.0}


class Report:
    """Counts and scores, collected over all queries."""

    def __init__(self) -> None:
        self.queries = self.rows = self.too_few = 0
        self.dropped: collections.Counter[str] = collections.Counter()
        """Candidates that each rule dropped; "candidates" counts all."""
        self._positives, self._negatives = array("f"), array("f")
        self._differences = array("f")

    def add(self, positives: Iterable[float], negatives: Iterable[float]) -> None:
        """Count a query with the scores of its positives and of its negatives."""
        positives, negatives = [*positives], [*negatives]
        self.queries += 1
        self._positives.extend(positives)
        self._negatives.extend(negatives)
        self._differences.extend(p - n for p in positives for n in negatives)

    def summary(self) -> dict[str, Any]:
        """Everything as JSON."""
        candidates = self.dropped["candidates"]
        rules = {rule: n for rule, n in self.dropped.items() if rule != "candidates"}
        scores = {
            "positive": self._positives,
            "negative": self._negatives,
            "difference": self._differences,
        }
        return {
            "queries": self.queries,
            "rows": self.rows,
            "queries_with_too_few": self.too_few,
            "candidates": candidates,
            "dropped": rules,
            "scores": {name: _quantiles(values) for name, values in scores.items()},
        }


def _quantiles(values: array) -> dict[str, float]:
    """Number, mean and quantiles of scores; only the number where there are none."""
    result: dict[str, float] = {"count": len(values)}
    if values:
        numbers = np.frombuffer(values, np.float32).astype(np.float64)
        result["mean"] = float(numbers.mean())
        result |= {name: float(np.quantile(numbers, q)) for name, q in QUANTILES.items()}
    return result

"""Exact match and F1 of answers, as SQuAD 1.1 and 2.0 define them.

Rajpurkar et al. 2016 (arXiv:1606.05250) and 2018 (arXiv:1806.03822).
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from .scores import share

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Answered(NamedTuple):
    """The answer to a question, and the evidence that there is none."""

    text: str
    """The best answer, even where there may be none."""
    gold: Sequence[str]
    """Reference answers; empty if the text has no answer."""
    no_answer_score: float = -np.inf
    """Above the threshold, the prediction is that there is no answer."""


def normalized(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, with single spaces."""
    text = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(text.split())


def exact(answer: str, gold: str) -> float:
    """1 if both texts are equal after normalisation."""
    return float(normalized(answer) == normalized(gold))


def f1(answer: str, gold: str) -> float:
    """F1 of the words, counted as often as they occur; two empty texts match."""
    a, b = normalized(answer).split(), normalized(gold).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


_SCORES: dict[str, Callable[[str, str], float]] = {"exact_match": exact, "f1": f1}


def metrics(answered: Sequence[Answered], threshold: float, no_answer: bool) -> dict[str, float]:
    """Means over all questions of the best score among the reference answers.

    Args:
        answered: Answers to all questions.
        threshold: Threshold on `no_answer_score`.
        no_answer: Whether texts may have no answer; adds SQuAD 2.0's metrics.
    """
    metrics = {}
    for name, score in _SCORES.items():
        scores = Scores(answered, score)
        values, has = scores.at(threshold), scores.has_answer
        metrics[name] = float(values.mean())
        if no_answer:
            metrics[f"{name}_answerable"] = float(share(values[has].sum(), has.sum()))
            metrics[f"{name}_unanswerable"] = float(share(values[~has].sum(), (~has).sum()))
            metrics[f"best_{name}"], metrics[f"best_{name}_threshold"] = scores.best()
    return metrics


def names(no_answer: bool) -> tuple[str, ...]:
    """Keys of `metrics`."""
    more = ("{}_answerable", "{}_unanswerable", "best_{}", "best_{}_threshold")
    forms = more if no_answer else ()
    return (*_SCORES, *(form.format(name) for name in _SCORES for form in forms))


class Scores:
    """One kind of score for every question, at any threshold."""

    def __init__(self, answered: Sequence[Answered], score: Callable[[str, str], float]):
        """Compare every answer with its references by `score`.

        References without a word after normalisation are ignored; if none is left, the reference
        is the empty text.
        """
        gold = [[g for g in a.gold if normalized(g)] for a in answered]
        pairs = zip(answered, gold, strict=True)
        self.raw = np.array([max(score(a.text, g) for g in golds or [""]) for a, golds in pairs])
        self.has_answer = np.array([bool(golds) for golds in gold])
        self.is_text = np.array([a.text != "" for a in answered])
        self.no_answer_score = np.array([a.no_answer_score for a in answered])

    def at(self, threshold: float) -> np.ndarray:
        """Scores if texts above the threshold count as without an answer."""
        return np.where(self.no_answer_score > threshold, ~self.has_answer, self.raw)

    def best(self) -> tuple[float, float]:
        """The best mean over all thresholds, and the lowest threshold that gives it."""
        values, place = np.unique(self.no_answer_score, return_inverse=True)
        gains = np.where(self.has_answer, self.raw, -1.0 * self.is_text)
        sums = np.cumsum(np.bincount(place, gains, len(values)))
        sums = np.concatenate([[0.0], sums]) + (~self.has_answer).sum()
        thresholds = np.concatenate([[np.nextafter(values[0], -np.inf)], values])
        best = int(sums.argmax())
        return float(sums[best] / len(self.raw)), float(thresholds[best])

"""Exact match and F1 of answers, as SQuAD 1.1 and 2.0 define them.

Rajpurkar et al. 2016 (arXiv:1606.05250) and 2018 (arXiv:1806.03822).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .scores import share

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


class Answered(NamedTuple):
    """What was answered to a question, and how surely there is none."""

    text: str
    """The best answer, even where there may be none."""
    gold: Sequence[str]
    """The right ones; none where the text has no answer."""
    no_answer_score: float = -np.inf
    """Above the threshold, the text counts as one without an answer."""


def normalized(text: str) -> str:
    """In lower case, without ASCII punctuation and English articles, with single spaces."""
    text = _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION))
    return " ".join(text.split())


def exact(answer: str, gold: str) -> float:
    """1 for equal texts, but for what `normalized` takes away."""
    return float(normalized(answer) == normalized(gold))


def f1(answer: str, gold: str) -> float:
    """Of words, as often as they occur; texts without any are right only together."""
    a, b = normalized(answer).split(), normalized(gold).split()
    if not a or not b:
        return float(a == b)
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b))


def golds(answers: Sequence[str]) -> list[str]:
    """The answers to compare with: those of which something is left, or else none, which is ""."""
    return [a for a in answers if normalized(a)] or [""]


def metrics(answered: Sequence[Answered], threshold: float, no_answer: bool) -> dict[str, float]:
    """Means over all questions of the best score among the right answers.

    Args:
        answered: what was answered.
        threshold: of `no_answer_score`.
        no_answer: whether there are texts without an answer; adds SQuAD 2.0's numbers.
    """
    best = [Scores(answered, score) for score in (exact, f1)]
    found = {}
    for name, scores in zip(("exact_match", "f1"), best, strict=True):
        at_threshold = scores.at(threshold)
        found[name] = float(at_threshold.mean())
        if not no_answer:
            continue
        has = scores.has_answer
        found[f"{name}_answerable"] = float(share(at_threshold[has].sum(), has.sum()))
        found[f"{name}_unanswerable"] = float(share(at_threshold[~has].sum(), (~has).sum()))
        found[f"best_{name}"], found[f"best_{name}_threshold"] = scores.best()
    return found


def names(no_answer: bool) -> tuple[str, ...]:
    """What `metrics` gives."""
    plain = ("exact_match", "f1")
    if not no_answer:
        return plain
    more = ("{}_answerable", "{}_unanswerable", "best_{}", "best_{}_threshold")
    return (*plain, *(form.format(name) for name in plain for form in more))


class Scores:
    """One kind of score for every question, before and after a threshold."""

    def __init__(self, answered: Sequence[Answered], score):
        """`score` compares a text with a right answer."""
        pairs = [(a.text, golds(a.gold)) for a in answered]
        self.raw = np.array([max(score(text, g) for g in gold) for text, gold in pairs])
        self.has_answer = np.array([gold != [""] for _, gold in pairs])
        self.says_something = np.array([text != "" for text, _ in pairs])
        self.no_answer_score = np.array([a.no_answer_score for a in answered])

    def at(self, threshold: float) -> np.ndarray:
        """Scores where texts above the threshold count as without an answer."""
        return np.where(self.no_answer_score > threshold, ~self.has_answer, self.raw)

    def best(self) -> tuple[float, float]:
        """The best mean that any threshold gives, and the lowest threshold that gives it."""
        values, place = np.unique(self.no_answer_score, return_inverse=True)
        gains = np.where(self.has_answer, self.raw, -1.0 * self.says_something)
        sums = np.cumsum(np.bincount(place, gains, len(values)))
        sums = np.concatenate([[0.0], sums]) + (~self.has_answer).sum()
        thresholds = np.concatenate([[np.nextafter(values[0], -np.inf)], values])
        place = int(sums.argmax())
        return float(sums[place] / len(self.raw)), float(thresholds[place])

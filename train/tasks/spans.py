"""The best answers from logits of starts and ends, over all windows of a text."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Candidate(NamedTuple):
    """A possible answer."""

    start: int
    """First character in the text."""
    stop: int
    """Character after the last."""
    score: float
    """Sum of the logits of the first and the last token."""


def best(
    logits: Sequence[np.ndarray], spans: Sequence[np.ndarray], text: str, count: int, longest: int
) -> list[Candidate]:
    """The best `count` answers, each once, the best one first.

    Every start is combined with every end, not only good starts with good ends.

    Args:
        logits: float32 [tokens, 2] of each window: starts, ends.
        spans: int32 [tokens, 2] of each window, as in `alignment.Window`.
        text: Text that spans refer to.
        count: Number of answers.
        longest: Maximum tokens of an answer.
    """
    best_scores: dict[tuple[int, int], float] = {}
    for scores, borders in zip(logits, spans, strict=True):
        for first, last, score in _top(scores, borders[:, 0] >= 0, count, longest):
            place = _trimmed(text, int(borders[first, 0]), int(borders[last, 1]))
            if place[0] < place[1]:
                best_scores[place] = max(score, best_scores.get(place, -np.inf))
    ranked = sorted(best_scores.items(), key=lambda item: (-item[1], item[0]))
    return [Candidate(*place, score) for place, score in ranked[:count]]


def null_score(logits: Sequence[np.ndarray]) -> float:
    """Score of no answer: logits of [CLS] as start and end, in the window where they are lowest."""
    return float(min(np.float64(x[0, 0]) + x[0, 1] for x in logits))


def _top(
    logits: np.ndarray, inside: np.ndarray, count: int, longest: int
) -> list[tuple[int, int, float]]:
    """The best spans of one window: first token, last token, score."""
    context = np.flatnonzero(inside)
    if not context.size:
        return []
    begin, end = context[0], context[-1] + 1
    starts, ends = np.asarray(logits[begin:end], np.float64).T
    longest = min(longest, len(starts))
    padded = np.concatenate([ends, np.full(longest - 1, -np.inf)])
    sums = starts[:, None] + np.lib.stride_tricks.sliding_window_view(padded, longest)
    # Several spans may have the same characters, so a few more are kept than are wanted.
    keep = min(2 * count, sums.size)
    flat = np.argpartition(-sums, keep - 1, axis=None)[:keep]
    first, more = np.unravel_index(flat, sums.shape)
    return [
        (int(begin + a), int(begin + a + b), float(sums[a, b]))
        for a, b in zip(first, more, strict=True)
        if np.isfinite(sums[a, b])
    ]


def _trimmed(text: str, start: int, stop: int) -> tuple[int, int]:
    """A span without white space at its ends."""
    inner = text[start:stop]
    return start + len(inner) - len(inner.lstrip()), stop - len(inner) + len(inner.rstrip())

"""Choose the negatives of queries among their candidates."""

import collections
from collections.abc import Sequence

import numpy as np

from ..candidates import NONE, Candidates
from .rules import Rules


def select(
    candidates: Candidates,
    excluded: Sequence[np.ndarray],
    positive_scores: Sequence[np.ndarray],
    rules: Rules,
    window: int,
    first: int,
    dropped: collections.Counter[str],
) -> Candidates:
    """Choose the negatives of queries.

    Args:
        candidates: of Q queries.
        excluded: for each query, numbers of documents that are no candidates.
        positive_scores: for each query, the scores of its positives.
        rules: which candidates may be negatives.
        window: of `Rules.window`.
        first: number of the first query, for the random choice.
        dropped: counts, by rule, the candidates that it drops, and all of them as "candidates".

    Returns:
        The negatives of each query, best first: [Q, K] with a K of at most num_negatives; `NONE`
        and -inf where fewer are left.
    """
    scores = candidates.scores.astype(np.float32)
    kept = candidates.indices != NONE
    dropped["candidates"] += int(kept.sum())

    def drop(rule: str, bad: np.ndarray) -> None:
        nonlocal kept
        dropped[rule] += int((kept & bad).sum())
        kept &= ~bad

    own = [np.isin(row, out) for row, out in zip(candidates.indices, excluded, strict=True)]
    drop("positive", np.array(own).reshape(kept.shape))
    worst = np.array([min(s, default=np.inf) for s in positive_scores], np.float32)[:, None]
    if rules.absolute_margin is not None:
        drop("absolute_margin", scores + np.float32(rules.absolute_margin) > worst)
    if rules.relative_margin is not None:
        drop("relative_margin", scores > worst - abs(worst) * np.float32(rules.relative_margin))
    if rules.max_score is not None:
        drop("max_score", scores > np.float32(rules.max_score))
    if rules.min_score is not None:
        drop("min_score", scores < np.float32(rules.min_score))

    scores = np.where(kept, scores, np.float32(-np.inf))
    indices = np.where(kept, candidates.indices, NONE)
    order = np.lexsort((indices, -scores), axis=-1)[:, rules.range_min : window]
    scores, indices = (np.take_along_axis(x, order, axis=-1) for x in (scores, indices))
    count = min(rules.num_negatives, scores.shape[1])
    chosen = np.zeros((len(scores), count), np.int64) + np.arange(count)
    if rules.sampling == "random":
        for i, left in enumerate((indices != NONE).sum(-1)):
            if left > count:
                rng = np.random.default_rng([rules.seed, first + i])
                chosen[i] = np.sort(rng.choice(left, count, replace=False))
    return Candidates(*(np.take_along_axis(x, chosen, axis=-1) for x in (scores, indices)))

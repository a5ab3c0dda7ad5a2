"""The rules for negatives, against an independent choice candidate by candidate."""

import collections
import itertools

import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.retrieval.candidates import NONE, Candidates
from modernbert_jax.train.retrieval.mining.rules import Rules
from modernbert_jax.train.retrieval.mining.select import select

WINDOW = 8


def drawn(seed: int, queries: int = 6, count: int = 12):
    """Candidates best first, some missing; documents that are excluded; scores of positives."""
    rng = np.random.default_rng(seed)
    scores = -np.sort(-rng.normal(size=(queries, count)).round(1).astype(np.float32), axis=-1)
    indices = np.stack([rng.permutation(30)[:count] for _ in range(queries)])
    order = np.lexsort((indices, -scores), axis=-1)
    indices = np.take_along_axis(indices, order, -1)
    indices[1, 9:], indices[2] = NONE, NONE
    scores[indices == NONE] = -np.inf
    excluded = [np.append(rng.choice(30, 1 + i % 3), indices[i, i % 4]) for i in range(queries)]
    positives = [rng.normal(size=1 + i % 2).astype(np.float32) for i in range(queries)]
    return Candidates(scores, indices), excluded, positives


def by_hand(candidates, excluded, positives, rules):
    """The negatives of each query in the window, and how many candidates each rule drops."""
    windows, dropped = [], collections.Counter()
    for scores, documents, own, good in zip(*candidates, excluded, positives, strict=True):
        left = [(s, d) for s, d in zip(scores, documents, strict=True) if d != NONE]
        dropped["candidates"] += len(left)
        tests = [("positive", lambda s, d, own=own: d in own)]
        worst = min(good)
        if rules.absolute_margin is not None:
            tests.append(("absolute_margin", lambda s, d, w=worst: s + np.float32(0.5) > w))
        if rules.relative_margin is not None:
            limit = worst - abs(worst) * np.float32(0.05)
            tests.append(("relative_margin", lambda s, d, limit=limit: s > limit))
        if rules.max_score is not None:
            tests.append(("max_score", lambda s, d: s > np.float32(0.7)))
        if rules.min_score is not None:
            tests.append(("min_score", lambda s, d: s < np.float32(-1.2)))
        for name, bad in tests:
            dropped[name] += sum(bool(bad(*pair)) for pair in left)
            left = [pair for pair in left if not bad(*pair)]
        left.sort(key=lambda pair: (-pair[0], pair[1]))
        windows.append([int(d) for _, d in left[rules.range_min : WINDOW]])
    return windows, dropped


@pytest.mark.parametrize("seed", range(3))
def test_every_combination_of_rules(seed):
    data = drawn(seed)
    values = {"absolute_margin": 0.5, "relative_margin": 0.05, "max_score": 0.7, "min_score": -1.2}
    for names in itertools.chain.from_iterable(
        itertools.combinations(values, n) for n in range(len(values) + 1)
    ):
        for skipped in (0, 2):
            rules = Rules(range_min=skipped, **{name: values[name] for name in names})
            windows, dropped = by_hand(*data, rules)
            counted = collections.Counter()
            chosen = select(*data, rules, WINDOW, 0, counted)
            assert chosen.indices.shape == (6, 3)
            for row, scores, window in zip(*reversed(chosen), windows, strict=True):
                assert [d for d in row if d != NONE] == window[:3]
                assert ((row == NONE) == np.isneginf(scores)).all()
            assert counted == dropped


def test_scores_stay_with_their_documents():
    data = drawn(7)
    few = Rules(num_negatives=10**12, sampling="random")
    chosen = select(*data, few, 99, 0, collections.Counter())
    of = [dict(zip(d, s, strict=True)) for s, d in zip(*data[0], strict=True)]
    for known, scores, documents in zip(of, *chosen, strict=True):
        assert all(known[d] == s for s, d in zip(scores, documents, strict=True) if d != NONE)
        assert (np.diff(scores[documents != NONE]) <= 0).all()


def test_random_choice_is_of_the_window_and_of_seed_and_query():
    data = drawn(3)
    rules = Rules(sampling="random", seed=5)
    windows, _ = by_hand(*data, rules)
    chosen = select(*data, rules, WINDOW, 40, collections.Counter()).indices
    for row, window in zip(chosen, windows, strict=True):
        row = [d for d in row if d != NONE]
        assert len({*row}) == len(row) == min(3, len(window)) and {*row} <= {*window}
        assert row == [d for d in window if d in row]
    assert (chosen != select(*data, Rules(), WINDOW, 40, collections.Counter()).indices).any()
    halves = [
        select(
            Candidates(*(x[part] for x in data[0])),
            *(x[part] for x in data[1:]),
            rules,
            WINDOW,
            40 + (part.start or 0),
            collections.Counter(),
        ).indices
        for part in (slice(0, 2), slice(2, 6))
    ]
    assert (np.concatenate(halves) == chosen).all()


def test_scores_below_zero_have_a_relative_margin_below_them():
    candidates = Candidates(np.array([[-1.0, -1.04, -1.06]], np.float32), np.array([[0, 1, 2]]))
    rules = Rules(relative_margin=0.05, num_negatives=1)
    counts = collections.Counter()
    chosen = select(candidates, [np.array([9])], [np.array([-1.0])], rules, 3, 0, counts)
    assert chosen.indices.tolist() == [[2]] and counts["relative_margin"] == 2


def test_the_window():
    assert Rules().window(2, False) == 5
    assert Rules(range_min=4, num_negatives=1).window(1, True) == 6
    assert Rules(relative_margin=0.05).window(1, False) == 31
    assert Rules(min_score=0.1).window(1, False) == 4 and Rules(min_score=0.1).window(1, True) == 31
    assert Rules(range_max=7, max_score=1.0).window(3, True) == 7


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"range_min": 3, "range_max": 5}, "leaves 2"),
        ({"num_negatives": 0}, "num_negatives is 0"),
        ({"absolute_margin": -0.1}, "absolute_margin"),
        ({"max_score": float("nan")}, "max_score"),
    ],
)
def test_bad_rules(values, word):
    with pytest.raises(UserError, match=word):
        Rules(**values).check()

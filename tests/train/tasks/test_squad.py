"""SQuAD's metrics, compared with a second implementation of their definition."""

import json
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_jax.train.tasks import squad
from modernbert_jax.train.tasks.squad import Answered

TEXTS = st.one_of(
    st.sampled_from(["", "the", "The cat", "a cat.", "cat cat dog", "An  U.S. dog", "1,000"]),
    st.text(st.sampled_from("ab tThe.,'-Aan é"), max_size=14),
)


def tokens(text: str) -> list[str]:
    """Words after lower-casing, then removal of ASCII punctuation, then of articles."""
    kept = [c for c in text.lower() if not (c.isascii() and unicodedata.category(c)[0] in "PS")]
    result = re.split(r"\s+", re.sub(r"(?<!\w)(?:the|an|a)(?!\w)", " ", "".join(kept)))
    return [word for word in result if word]


def f1(answer: str, gold: str) -> float:
    """F1 from precision and recall; a word counts as often as it is in both texts."""
    left, hits, words = tokens(gold), 0, tokens(answer)
    if not words or not left:
        return float(not words and not left)
    total = len(left)
    for word in words:
        if word in left:
            left.remove(word)
            hits += 1
    precision, recall = hits / len(words), hits / total
    return 2 * precision * recall / (precision + recall) if hits else 0.0


@settings(max_examples=300, deadline=None)
@given(TEXTS, TEXTS)
def test_scores_of_an_answer(answer, gold):
    assert squad.exact(answer, gold) == (tokens(answer) == tokens(gold))
    assert squad.f1(answer, gold) == pytest.approx(f1(answer, gold))


def test_normalisation_by_hand():
    assert squad.normalized("The  U.S.'s A-an  the_cat!") == "uss aan thecat"
    assert squad.exact("the Cat.", "cat") == 1 and squad.exact("theatre", "atre") == 0
    assert squad.f1("the big cat", "cat") == pytest.approx(2 / 3)


ANSWERS = st.lists(
    st.builds(
        Answered,
        st.sampled_from(["cat", "big dog", "", "the"]),
        st.lists(st.sampled_from(["cat", "dog", "the"]), max_size=2),
        st.integers(-3, 3).map(float),
    ),
    min_size=1,
    max_size=12,
)


def mean(answered, score, threshold) -> tuple[float, list[float], list[float]]:
    """Mean over all questions, and the scores of those with and without an answer."""
    has, none = [], []
    for text, gold, no_answer_score in answered:
        right = [g for g in gold if tokens(g)]
        message = "" if no_answer_score > threshold else text
        if message == "" and no_answer_score > threshold:
            value = float(not right)
        else:
            value = max(score(message, g) for g in right or [""])
        (has if right else none).append(value)
    return sum(has + none) / len(answered), has, none


@settings(max_examples=150, deadline=None)
@given(ANSWERS, st.integers(-4, 4))
def test_means_and_best_thresholds(answered, threshold):
    result = squad.metrics(answered, threshold, no_answer=True)
    assert {*result} == {*squad.names(True)}
    for name, score in (("exact_match", lambda a, b: tokens(a) == tokens(b)), ("f1", f1)):
        want, has, none = mean(answered, score, threshold)
        assert result[name] == pytest.approx(want)
        assert result[f"{name}_answerable"] == pytest.approx(sum(has) / len(has) if has else 0)
        assert result[f"{name}_unanswerable"] == pytest.approx(sum(none) / len(none) if none else 0)
        all_means = [mean(answered, score, t)[0] for t in np.arange(-4, 4)]
        best = result[f"best_{name}"]
        # SQuAD's script counts any text where there is no answer as wrong, also "the".
        silent = all(a.text != "the" for a in answered)
        if silent:
            assert best == pytest.approx(max(all_means))
            assert mean(answered, score, result[f"best_{name}_threshold"])[0] == pytest.approx(best)
    json.dumps(result, allow_nan=False)


def test_one_answer_of_several_is_enough():
    result = squad.metrics([Answered("cat", ["dog", "a cat"])], 0.0, no_answer=False)
    assert result == {"exact_match": 1.0, "f1": 1.0}

"""The best answers of all windows, compared with an exhaustive search."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_jax.train.tasks import spans

TEXT = "ab cd ef gh ij kl"


def window(first: int, last: int) -> np.ndarray:
    """Spans of [CLS], two tokens of a question, one token per word with its space, and [SEP]."""
    borders = [(max(3 * w - 1, 0), 3 * w + 2) for w in range(first, last)]
    return np.array([(-1, -1)] * 3 + borders + [(-1, -1)], np.int32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 5))
def test_against_trying_everything(seed, count, longest):
    rng = np.random.default_rng(seed)
    windows = [window(0, 4), window(2, 6)]
    logits = [rng.standard_normal((len(w), 2)).astype(np.float32) for w in windows]
    every: dict = {}
    for x, w in zip(logits, windows, strict=True):
        for a in range(3, len(w) - 1):
            for b in range(a, min(a + longest, len(w) - 1)):
                place = (w[a, 0] + (w[a, 0] > 0), w[b, 1])
                score = float(np.float64(x[a, 0]) + x[b, 1])
                every[place] = max(score, every.get(place, -np.inf))
    want = sorted(every.items(), key=lambda item: -item[1])[:count]
    result = spans.best(logits, windows, TEXT, count, longest)
    assert [(c.start, c.stop) for c in result] == [place for place, _ in want]
    np.testing.assert_allclose([c.score for c in result], [score for _, score in want])
    assert all(TEXT[c.start : c.stop].strip() == TEXT[c.start : c.stop] for c in result)


def test_a_window_without_text_has_no_answer():
    empty = np.full((4, 2), -1, np.int32)
    assert spans.best([np.zeros((4, 2), np.float32)], [empty], TEXT, 5, 5) == []


def test_no_answer_is_as_likely_as_in_the_window_that_doubts_it_most():
    assert spans.null_score([np.full((3, 2), 2.0), np.full((3, 2), -1.0)]) == -2

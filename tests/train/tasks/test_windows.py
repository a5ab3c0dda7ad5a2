"""Windows cover all tokens and end between words; words have the window with most context."""

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_jax.alignment import Pieces
from modernbert_jax.train.tasks import windows


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=25), st.integers(1, 12), st.data())
def test_windows(lengths, room, data):
    stride = data.draw(st.integers(0, room - 1))
    words = np.repeat(np.arange(len(lengths)), lengths)
    result = windows.cut(words, room, stride)
    assert result[0][0] == 0 and result[-1][1] == len(words)
    for begin, end in result:
        assert end - begin <= room
        for border in (begin, end):
            split = 0 < border < len(words) and words[border] == words[border - 1]
            assert not split or lengths[words[border]] > room
    for (a, b), (c, d) in itertools.pairwise(result):
        assert a < c <= b < d
        # More is shared than asked for only if less would cut a word.
        assert b - c <= stride
    places = windows.deepest(Pieces(words, words), result, len(lengths))
    for word, (j, at) in enumerate(places):
        if not lengths[word]:
            assert (j, at) == (-1, -1)
            continue
        first = int(np.flatnonzero(words == word)[0])
        assert result[j][0] + at == first

        def depth(begin, end, first=first):
            left = first - begin if begin else len(words)
            right = end - 1 - first if end < len(words) else len(words)
            return min(left, right) if begin <= first < end else -1

        assert depth(*result[j]) == max(depth(*w) for w in result)


def test_a_short_text_is_one_window():
    assert windows.cut(np.array([0, 0, 1]), 3, 1) == [(0, 3)]
    assert windows.cut(np.zeros(0, np.int32), 3, 1) == [(0, 0)]

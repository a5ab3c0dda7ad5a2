"""Packed rows for tests of attention: random ones by hypothesis, and named worst cases."""

import numpy as np
import tiny
from hypothesis import strategies as st


@st.composite
def packed_rows(draw, rows: int, length: int, block: int) -> np.ndarray:
    """Draw segment ids [rows, length], each row packed differently, with or without padding.

    Documents end anywhere, but often on, just before or just after a multiple of `block`, or are
    of length one.
    """
    edges = [edge + by for edge in range(block, length, block) for by in (-1, 0, 1)]
    anywhere = st.integers(1, length)
    ends = st.lists(st.one_of(st.sampled_from(edges), anywhere), max_size=8)

    def row() -> list[int]:
        cuts = set(draw(ends))
        cuts |= {cut + 1 for cut in cuts if cut < length and draw(st.booleans())}
        if draw(st.booleans()):
            cuts.add(length)
        return np.diff([0, *sorted(cuts)]).tolist()

    return tiny.segments([row() for _ in range(rows)], length)


def worst_cases(length: int, block: int) -> list[np.ndarray]:
    """Return the worst cases: full, empty, single tokens, on and across edges, long padding."""
    rows = [
        [length],
        [],
        [1] * length,
        [block] * (length // block),
        [block - 1, 2, block, length - 2 * block - 1],
        [block + 1, 1, 1],
    ]
    return [tiny.segments(pair, length) for pair in zip(rows[::2], rows[1::2], strict=True)]

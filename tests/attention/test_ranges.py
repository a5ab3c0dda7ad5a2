"""Properties of key ranges and of what is summarised from them."""

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_jax.attention import key_ranges

LENGTH = 300
"""Not a multiple of what a summary covers."""


@st.composite
def relations(draw):
    """Ranges over two packed rows, and the same relation as a matrix [B, T, T]."""
    rows = []
    for _ in range(2):
        row = []
        while sum(row) < LENGTH and draw(st.integers(0, 4)):
            left = LENGTH - sum(row)
            row.append(min(left, draw(st.sampled_from([1, 63, 64, 65, 130, left]))))
        rows.append(row)
    ids = tiny.segments(rows, LENGTH)
    window = draw(st.sampled_from([None, 1, 2, 16, 128, 1000]))
    causal = draw(st.booleans())
    i, j = np.arange(LENGTH)[:, None], np.arange(LENGTH)
    allowed = (ids[:, :, None] == ids[:, None]) & (ids[:, :, None] != 0)
    if window is not None:
        allowed &= np.abs(i - j) <= window // 2
    if causal:
        allowed &= j <= i
    return key_ranges(jnp.asarray(ids), window, causal=causal), allowed, causal


@settings(max_examples=25, deadline=None, derandomize=True)
@given(relation=relations())
def test_ranges_and_their_transposition_are_the_relation(relation):
    ranges, allowed, causal = relation
    keys = jnp.arange(LENGTH)
    np.testing.assert_array_equal(ranges.allows(keys), allowed)
    np.testing.assert_array_equal(ranges.transposed.allows(keys), allowed.swapaxes(1, 2))
    np.testing.assert_array_equal(ranges.empty, ~allowed.any(-1))
    assert (ranges.queries is None) != causal


@pytest.mark.parametrize(("size", "key_size"), [(64, None), (64, 16), (128, 64), (256, 512)])
@settings(max_examples=12, deadline=None, derandomize=True)
@given(relation=relations())
def test_blocks_are_exactly_what_their_queries_see(size, key_size, relation):
    ranges, allowed, _ = relation
    for bounds, matrix in ((ranges, allowed), (ranges.transposed, allowed.swapaxes(1, 2))):
        blocks = [np.asarray(x) for x in bounds.blocks(size, key_size)]
        for row in range(2):
            for b, (start, count, full_first, full_last) in enumerate(
                zip(*(x[row] for x in blocks), strict=True)
            ):
                block = matrix[row, b * size : (b + 1) * size]
                seen = np.flatnonzero(block.any(0))
                whole = np.flatnonzero(block.all(0))
                if len(seen) == 0:
                    assert count == 0
                else:
                    assert start == seen[0] // (key_size or size)
                    assert start + count - 1 == seen[-1] // (key_size or size)
                if len(block) == size:
                    np.testing.assert_array_equal(
                        np.arange(full_first, full_last + 1) if full_first <= full_last else [],
                        whole,
                    )
                else:
                    assert full_first > full_last


def test_blocks_that_no_summary_fits_are_refused():
    ranges = key_ranges(jnp.ones((1, 128), jnp.int32))
    with pytest.raises(ValueError, match="blocks of 96 tokens: a multiple of 64"):
        ranges.blocks(96)

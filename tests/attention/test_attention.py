"""The key ranges, and every implementation of attention against the dense one."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from modernbert_jax.attention import attention, check_name, key_ranges
from modernbert_jax.attention.xla_range import BLOCK
from modernbert_jax.errors import UserError

LENGTH = 3 * BLOCK + 17
"""Not a multiple of the block, so that the padding of the last block is on trial too."""

LAYOUTS = {
    "one document": [[LENGTH]],
    "length one": [[1, 1, 1, 100, 1]],
    "straddling blocks": [[100, 60, 200, 30]],
    "exact blocks": [[BLOCK, BLOCK, BLOCK]],
    "padding tail": [[BLOCK + 1, 5]],
    "wholly padded": [[]],
}
WINDOWS = (None, 1, 2, 16, 127, 128, 129)
OTHERS = ["xla_range", "two_block"]


def tensors(rows: int, length: int, heads: int, width: int, dtype="float32", seed: int = 0):
    """q, k, v and a cotangent of the output."""
    rng = np.random.default_rng(seed)
    shape = (rows, length, heads, width)
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(4))


@functools.partial(jax.jit, static_argnames=("implementation", "window"))
def run(q, k, v, cotangent, ranges, implementation, window=None):
    """The output, and the gradients of q, k and v."""

    def out(q, k, v):
        return attention(q, k, v, ranges, window=window, implementation=implementation)

    value, pull = jax.vjp(out, q, k, v)
    return value, *pull(cotangent)


def compare(segment_ids, window, arrays, implementation, causal=False, **tolerance):
    if implementation == "two_block" and window is None:
        pytest.skip("it computes sliding windows only")
    ranges = key_ranges(jnp.asarray(segment_ids), window, causal=causal)
    want = run(*arrays, ranges, "dense")
    got = run(*arrays, ranges, implementation, window)
    for name, a, b in zip(("out", "dq", "dk", "dv"), got, want, strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, **tolerance, err_msg=name)
        assert not a[np.asarray(segment_ids) == 0].any(), f"{name} of padding"


# --- key ranges ------------------------------------------------------------------------------


@pytest.mark.parametrize("window", WINDOWS)
def test_key_ranges_are_segment_and_window(window):
    rng = np.random.default_rng(0)
    length, rows = 47, [[] for _ in range(12)]
    for row in rows:
        while sum(row) < length and rng.random() < 0.8:
            row.append(int(rng.integers(1, length - sum(row) + 1)))
    segments = tiny.segments(rows, length)
    allowed = np.asarray(key_ranges(jnp.asarray(segments), window).allows(jnp.arange(length)))
    for row, visible in zip(segments.tolist(), allowed.tolist(), strict=True):
        for i in range(length):
            for j in range(length):
                near = window is None or abs(i - j) <= window // 2
                assert visible[i][j] == (row[i] == row[j] != 0 and near), (row, i, j)


def test_the_window_of_128_holds_129_keys():
    ranges = key_ranges(jnp.ones((1, 400), jnp.int32), 128)
    assert int(ranges.last[0, 200] - ranges.first[0, 200]) + 1 == 129


def test_neighbours_with_the_same_id_are_one_document_and_padding_is_empty():
    ranges = key_ranges(jnp.asarray([[1, 1, 2, 0, 0]]))
    np.testing.assert_array_equal(ranges.empty, [[False, False, False, True, True]])
    np.testing.assert_array_equal(ranges.first[0, :3], [0, 0, 2])
    np.testing.assert_array_equal(ranges.last[0, :3], [1, 1, 2])


# --- values and gradients --------------------------------------------------------------------


def test_dense_is_the_definition():
    """Against loops over queries in float64."""
    segments = tiny.segments([[5, 9]], 16)
    q, k, v, _ = tensors(1, 16, 2, 8)
    got = attention(q, k, v, key_ranges(jnp.asarray(segments), 6), implementation="dense")
    q, k, v = (np.asarray(x, np.float64)[0] for x in (q, k, v))
    for i in range(16):
        keys = [j for j in range(16) if segments[0, j] == segments[0, i] and abs(i - j) <= 3]
        for head in range(2):
            if segments[0, i] == 0:
                want = np.zeros(8)
            else:
                weights = np.exp(q[i, head] @ k[keys, head].T / np.sqrt(8))
                want = weights @ v[keys, head] / weights.sum()
            np.testing.assert_allclose(got[0, i, head], want, atol=1e-6)


@pytest.mark.parametrize("implementation", OTHERS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_equals_dense(implementation, window, layout):
    segments = tiny.segments(LAYOUTS[layout], LENGTH)
    compare(segments, window, tensors(1, LENGTH, 2, 32), implementation, atol=3e-6, rtol=0)


@pytest.mark.parametrize("implementation", OTHERS)
@pytest.mark.parametrize("window", (None, 16, 128))
def test_equals_dense_on_rows_packed_differently(implementation, window):
    rows = [[LENGTH], [], [1, 200, 7], [BLOCK, BLOCK + 1]]
    segments = tiny.segments(rows, LENGTH)
    compare(segments, window, tensors(4, LENGTH, 1, 32), implementation, atol=3e-6, rtol=0)


@pytest.mark.parametrize("implementation", OTHERS)
@pytest.mark.parametrize("width", (64, 128))
def test_equals_dense_for_head_widths(implementation, width):
    segments = tiny.segments([[150, 100]], 2 * BLOCK)
    compare(segments, 128, tensors(1, 2 * BLOCK, 2, width), implementation, atol=3e-6, rtol=0)


@pytest.mark.parametrize("implementation", ["xla_range", "two_block"])
@pytest.mark.parametrize("window", (None, 16))
def test_equals_dense_under_a_causal_mask(implementation, window):
    segments = tiny.segments([[BLOCK + 30, 1, 190]], LENGTH)
    arrays = tensors(1, LENGTH, 2, 32)
    compare(segments, window, arrays, implementation, causal=True, atol=3e-6, rtol=0)


@pytest.mark.parametrize("implementation", OTHERS)
@pytest.mark.parametrize("length", (1, 3, BLOCK - 1, BLOCK + 1))
def test_equals_dense_for_short_rows(implementation, length):
    segments = tiny.segments([[length]], length)
    compare(segments, 16, tensors(1, length, 1, 32), implementation, atol=3e-6, rtol=0)


@pytest.mark.parametrize("implementation", OTHERS)
def test_bfloat16_is_as_near_to_the_truth_as_dense_is(implementation):
    segments = tiny.segments([[200, 130]], LENGTH)
    exact = tensors(1, LENGTH, 2, 64)
    half = tuple(x.astype(jnp.bfloat16) for x in exact)
    ranges = key_ranges(jnp.asarray(segments), 128)
    truth = run(*(x.astype(jnp.float32) for x in half), ranges, "dense")
    for want, got, dense in zip(
        truth, run(*half, ranges, implementation, 128), run(*half, ranges, "dense"), strict=True
    ):
        assert got.dtype == jnp.bfloat16
        size = jnp.linalg.norm(want)
        error = jnp.linalg.norm(got.astype(jnp.float32) - want) / size
        assert error < 1.5 * jnp.linalg.norm(dense.astype(jnp.float32) - want) / size + 1e-4
        assert error < 8e-3


@pytest.mark.parametrize("implementation", ["dense", *OTHERS])
def test_the_same_bits_in_every_run(implementation):
    segments = tiny.segments([[50, 20]], BLOCK)
    ranges, arrays = key_ranges(jnp.asarray(segments), 16), tensors(1, BLOCK, 1, 32)
    first, second = (run(*arrays, ranges, implementation, 16) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("implementation", ["dense", *OTHERS])
def test_large_scores_stay_finite(implementation):
    q, k, v, cotangent = tensors(1, BLOCK, 1, 32)
    segments = tiny.segments([[50, 20]], BLOCK)
    ranges = key_ranges(jnp.asarray(segments), 16)
    for out in run(1e4 * q, k, v, cotangent, ranges, implementation, 16):
        assert np.isfinite(out).all()


# --- cost ------------------------------------------------------------------------------------


def shapes(implementation: str, length: int) -> set[tuple[int, ...]]:
    """The shape of every array in the program of the forward and backward pass."""
    x = jax.ShapeDtypeStruct((1, length, 1, 32), jnp.float32)
    ranges = jax.eval_shape(key_ranges, jax.ShapeDtypeStruct((1, length), jnp.int32))
    text = run.lower(x, x, x, x, ranges, implementation, 128).as_text()
    matches = re.findall(r"tensor<((?:\d+x)+)\w+>", text)
    return {tuple(int(n) for n in shape.split("x")[:-1]) for shape in matches}


def is_square(shape: tuple[int, ...], length: int) -> bool:
    return sum(n >= length for n in shape) > 1 or np.prod(shape) >= length**2


def test_the_dense_program_holds_all_scores():
    assert any(is_square(shape, 2048) for shape in shapes("dense", 2048))


@pytest.mark.parametrize("implementation", OTHERS)
def test_no_array_grows_with_the_square_of_the_length(implementation):
    arrays = shapes(implementation, 2048)
    assert len(arrays) > 5
    assert not [shape for shape in arrays if is_square(shape, 2048)]


BLOCKS = 6


def poisoned(segments, window, block, implementation):
    """Which blocks of each result are not finite after one block of the inputs is made NaN.

    A key that is visited but masked has weight zero, and zero times NaN is NaN: what stays
    finite was not visited.
    """
    ranges = key_ranges(jnp.asarray(segments), window)
    here = slice(block * BLOCK, (block + 1) * BLOCK)
    q, k, v, cotangent = tensors(1, BLOCKS * BLOCK, 1, 32)
    nan = [x.at[:, here].set(jnp.nan) for x in (v, cotangent)]
    forward = run(q, k, nan[0], cotangent, ranges, implementation, window)[0]
    backward = run(q, k, v, nan[1], ranges, implementation, window)[1:]

    def bad(x):
        by_block = np.isfinite(np.asarray(x)).reshape(BLOCKS, -1).all(-1)
        return {int(i) for i in np.flatnonzero(~by_block)}

    return bad(forward), set.union(*(bad(x) for x in backward))


@pytest.mark.parametrize("implementation", ["xla_range"])
def test_other_documents_are_not_visited(implementation):
    segments = tiny.segments([[2 * BLOCK, BLOCK, 2 * BLOCK]], BLOCKS * BLOCK)
    for block, document in {0: {0, 1}, 2: {2}, 4: {3, 4}, 5: set()}.items():
        assert poisoned(segments, None, block, implementation) == (document, document)


@pytest.mark.parametrize("implementation", ["xla_range"])
def test_keys_beyond_the_window_are_not_visited(implementation):
    segments = tiny.segments([[BLOCKS * BLOCK]], BLOCKS * BLOCK)
    assert poisoned(segments, 128, 2, implementation) == ({1, 2, 3}, {1, 2, 3})
    assert poisoned(segments, 1, 2, implementation) == ({2}, {2})
    everything = set(range(BLOCKS))
    assert poisoned(segments, None, 2, implementation) == (everything, everything)


def test_the_dense_one_visits_everything():
    """Or else the two tests above could not fail."""
    segments = tiny.segments([[2 * BLOCK, BLOCK, 2 * BLOCK]], BLOCKS * BLOCK)
    forward, _ = poisoned(segments, 128, 2, "dense")
    assert forward >= {0, 1, 2, 3, 4}


# --- choice ----------------------------------------------------------------------------------


def test_a_name_that_is_not_an_implementation():
    with pytest.raises(UserError, match="'xla_rang'; did you mean 'xla_range'"):
        check_name("xla_rang")

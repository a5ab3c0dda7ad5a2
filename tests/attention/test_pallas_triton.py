"""The GPU kernel, interpreted, against the dense oracle."""

import functools

import calls
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_jax.attention import attention, key_ranges, pallas_triton
from modernbert_jax.attention.triton_tiles import OPTIONS, tiles_for
from modernbert_jax.errors import UserError

LENGTH = 200
"""More than three tiles of 64 and no multiple of one."""

SMALL = {"fwd_k": 32, "dkv_k": 64, "dkv_q": 16, "dq_q": 128}
"""Tiles that are not square, and differ from kernel to kernel."""


@functools.partial(jax.jit, static_argnames=("window", "causal", "kernel"))
def run(q, k, v, cotangent, segment_ids, window, causal, kernel):
    """The output and the three gradients; by the kernel, with options, or by the oracle."""
    ranges = key_ranges(segment_ids, window, causal=causal)

    def out(q, k, v):
        if kernel is None:
            return attention(q, k, v, ranges, window=window, implementation="dense")
        return pallas_triton.attention(q, k, v, ranges, window=window, **dict(kernel))

    value, pull = jax.vjp(out, q, k, v)
    return value, *pull(cotangent)


@functools.cache
def tensors(rows: int, length: int, heads: int, width: int, dtype="float32"):
    rng = np.random.default_rng(0)
    shape = (rows, length, heads, width)
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(4))


KERNEL = tuple(sorted(SMALL.items()))


def compare(arrays, segments, window, causal=False, **options):
    segments = jnp.asarray(segments)
    want = run(*arrays, segments, window, causal, None)
    got = run(*arrays, segments, window, causal, tuple(sorted(options.items())))
    for name, a, b in zip(("out", "dq", "dk", "dv"), got, want, strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        atol = 3e-6 if arrays[0].dtype == jnp.float32 else 8e-3
        np.testing.assert_allclose(a, b, atol=atol, rtol=0, err_msg=name)
        assert not np.asarray(a)[np.asarray(segments) == 0].any(), f"{name} of padding"


@st.composite
def packings(draw):
    """Three rows of documents, many of one token or ending at the edge of a tile."""
    rows = []
    for _ in range(3):
        row = []
        while sum(row) < LENGTH and draw(st.integers(0, 5)):
            left = LENGTH - sum(row)
            to_edge = -sum(row) % 64 or 64
            row.append(min(left, draw(st.sampled_from([1, 2, to_edge, to_edge + 1, 90, left]))))
        rows.append(row)
    return tiny.segments(rows, LENGTH)


# Only in 16 bits and without a window are there tiles that go without a mask.
@pytest.mark.parametrize(
    ("window", "dtype"), [(None, "float16"), (None, "float32"), (128, "float32")]
)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(segments=packings())
def test_any_packing(window, dtype, segments):
    compare(tensors(3, LENGTH, 2, 32, dtype), segments, window, **SMALL)


def test_the_causal_relation_has_other_ranges_for_the_backward_pass():
    segments = tiny.segments([[LENGTH], [70, 1, 100], []], LENGTH)
    compare(tensors(3, LENGTH, 2, 32), segments, 16, causal=True, **SMALL)


def test_tiles_shorter_than_what_the_ranges_are_summed_up_by():
    """Tiles of 16 and 32 tokens; the last ones may be beyond the summaries."""
    segments = tiny.segments([[LENGTH], [70, 1, 100], [33]], LENGTH)
    for window in (None, 64):
        compare(tensors(3, LENGTH, 1, 128), segments, window, causal=window is None)


def test_a_row_of_one_token():
    compare(tensors(1, 1, 1, 32), tiny.segments([[1]], 1), None)


def test_half_precision_is_as_near_to_the_truth_as_the_oracle():
    segments = jnp.asarray(tiny.segments([[130, 60]], LENGTH))
    for dtype, width, most in (("bfloat16", 128, 8e-3), ("float16", 64, 1e-3)):
        half = tensors(1, LENGTH, 1, width, dtype)
        truth = run(*(x.astype("float32") for x in half), segments, None, False, None)
        dense = run(*half, segments, None, False, None)
        got = run(*half, segments, None, False, ())
        for want, a, b in zip(truth, got, dense, strict=True):
            assert a.dtype == dtype
            size = jnp.linalg.norm(want)
            error = jnp.linalg.norm(a.astype(jnp.float32) - want) / size
            assert error < 1.5 * jnp.linalg.norm(b.astype(jnp.float32) - want) / size + 1e-4
            assert error < most


def test_two_runs_agree_to_the_bit():
    segments = jnp.asarray(tiny.segments([[150, 30], [LENGTH], []], LENGTH))
    first, second = (
        run(*tensors(3, LENGTH, 2, 32), segments, None, False, KERNEL) for _ in range(2)
    )
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_large_scores_stay_finite():
    q, *others = tensors(3, LENGTH, 2, 32)
    segments = jnp.asarray(tiny.segments([[50, 9], [LENGTH], []], LENGTH))
    for out in run(1e4 * q, *others, segments, 128, False, KERNEL):
        assert np.isfinite(out).all()


@pytest.mark.parametrize("window", [None, 128])
def test_tiles_out_of_range_are_not_visited(window):
    """A visited key with weight zero makes NaN of a NaN, so what stays finite was not visited."""
    segments = jnp.asarray(tiny.segments([[64, 64, 72]] * 3, LENGTH))
    q, k, v, cotangent = tensors(3, LENGTH, 2, 32)
    poison = [x.at[:, 64:128].set(jnp.nan) for x in (v, cotangent)]
    out = run(q, k, poison[0], cotangent, segments, window, False, KERNEL)[0]
    grads = run(q, k, v, poison[1], segments, window, False, KERNEL)[1:]
    for arrays in ([out], grads):
        bad = sum(np.isnan(np.asarray(x)).any((0, 2, 3)) for x in arrays) > 0
        np.testing.assert_array_equal(np.flatnonzero(bad), np.arange(64, 128))


def test_every_option_reaches_its_tile():
    for number, name in enumerate(OPTIONS):
        kernel, part = name.split("_")
        value = 64 << number % 3
        assert getattr(getattr(tiles_for("bfloat16", 64, {name: value}), kernel), part) == value


@pytest.mark.parametrize("name", ["fwd_q", "dkv_k", "dq_k", "dq_warps"])
def test_a_tile_that_cannot_be_is_refused(name):
    with pytest.raises(UserError, match=f"{name} is 48; it must be a power of two"):
        tiles_for("bfloat16", 64, {name: 48})


call = functools.partial(calls.call, device_kind="NVIDIA A100-SXM4-80GB")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"capability": (8, 9)}, None),
        ({"platform": "cpu", "device_kind": "cpu"}, None),
        ({"platform": "tpu", "device_kind": "TPU v5 lite"}, "NVIDIA GPUs, not TPU v5 lite"),
        ({"device_kind": "AMD Instinct MI300X"}, "NVIDIA GPUs, not AMD"),
        ({"capability": (7, 5)}, "compute capability 8.0"),
        ({"head_dim": 96}, "heads of 96 in bfloat16; it has tiles for 32, 64, 128"),
        ({"head_dim": 128}, None),
        ({"head_dim": 128, "dtype": "float32"}, None),
        ({"dtype": "float64"}, "not in float64"),
    ],
)
def test_what_it_refuses(changes, reason):
    refusal = pallas_triton.refuses(call(**changes))
    assert refusal is None if reason is None else reason in refusal

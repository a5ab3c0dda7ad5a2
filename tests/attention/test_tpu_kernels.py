"""The TPU kernels and splash, interpreted, against the dense oracle."""

import functools

import calls
import jax
import jax.numpy as jnp
import numpy as np
import packings
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from modernbert_jax import rope
from modernbert_jax.attention import attention, dense, key_ranges, pallas_tpu, splash
from modernbert_jax.attention.choice import choose
from modernbert_jax.errors import UserError

ROWS, LENGTH, BLOCK, STEP = 2, 512, 256, 128
SMALL = {
    "pallas_tpu": {"block": BLOCK, "step": STEP},
    "splash": {"block_q": BLOCK, "block_kv": STEP},
}
MODULES = {"dense": dense, "pallas_tpu": pallas_tpu, "splash": splash}
NAMES = ("out", "dq", "dk", "dv")


@functools.partial(jax.jit, static_argnames=("implementation", "window"))
def run(arrays, ranges, implementation, window):
    """The output, and the gradients of q, k and v. Ranges are data; `window` picks the kernel."""
    *inputs, cotangent = arrays

    def out(q, k, v):
        options = SMALL.get(implementation, {})
        return MODULES[implementation].attention(q, k, v, ranges, window=window, **options)

    value, pull = jax.vjp(out, *inputs)
    return value, *pull(cotangent)


def tensors(length=LENGTH, heads=2, width=64, dtype="float32", rows=ROWS):
    rng = np.random.default_rng(length + width)
    shape = (rows, length, heads, width)
    return tuple(jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(4))


def compare(segments, window, implementation, arrays, kernel_window=None):
    ranges = key_ranges(jnp.asarray(segments), window)
    got = run(arrays, ranges, implementation, kernel_window or window)
    for name, a, b in zip(NAMES, got, run(arrays, ranges, "dense", None), strict=True):
        np.testing.assert_allclose(a, b, atol=4e-6, rtol=0, err_msg=name)
        assert not np.asarray(a)[segments == 0].any(), f"{name} of padding"


# --- values and gradients --------------------------------------------------------------------

examples = settings(max_examples=8, deadline=None, derandomize=True)


@examples
@given(segments=packings.packed_rows(ROWS, LENGTH, STEP))
def test_documents(segments):
    compare(segments, None, "pallas_tpu", tensors())


@examples
@given(segments=packings.packed_rows(ROWS, LENGTH, STEP), window=st.integers(1, 129))
def test_sliding_windows(segments, window):
    compare(segments, window, "pallas_tpu", tensors(), kernel_window=128)


def test_windows_too_wide_for_the_local_kernel():
    compare(tiny.segments([[300, 200], [512]], LENGTH), 300, "pallas_tpu", tensors())


@pytest.mark.parametrize("implementation", ["pallas_tpu", "splash"])
@pytest.mark.parametrize("window", [None, 128])
def test_the_worst_packings(implementation, window):
    for segments in packings.worst_cases(LENGTH, STEP):
        compare(segments, window, implementation, tensors())


def test_a_window_of_two_halves_of_a_tile():
    compare(tiny.segments([[300, 200], [512]], LENGTH), 255, "pallas_tpu", tensors())


@pytest.mark.parametrize(("length", "window"), [(1, 16), (300, None)])
def test_lengths_that_no_block_divides(length, window):
    compare(tiny.segments([[length], [1]], length), window, "pallas_tpu", tensors(length))


@pytest.mark.parametrize(("heads", "width", "window"), [(4, 32, None), (1, 128, 128), (4, 64, 128)])
def test_heads_that_fill_tiles(heads, width, window):
    segments = tiny.segments([[100, 120]], 256)
    compare(segments, window, "pallas_tpu", tensors(256, heads, width, rows=1))


# --- numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [None, 128])
def test_bfloat16_is_no_farther_from_float32_than_splash_is(window):
    """Root mean square errors, with logits of standard deviation 2."""
    segments = tiny.segments([[400, 100], [LENGTH]], LENGTH)
    ranges = key_ranges(jnp.asarray(segments), window)
    q, *others = tensors(dtype="bfloat16")
    arrays = 2 * q, *others
    truth = run(tuple(x.astype(jnp.float32) for x in arrays), ranges, "dense", window)

    def errors(implementation):
        got = run(arrays, ranges, implementation, window)
        assert {x.dtype for x in got} == {jnp.dtype("bfloat16")}
        size = [jnp.linalg.norm(x) for x in truth]
        return [
            float(jnp.linalg.norm(a.astype(jnp.float32) - b) / s)
            for a, b, s in zip(got, truth, size, strict=True)
        ]

    for name, ours, theirs in zip(NAMES, errors("pallas_tpu"), errors("splash"), strict=True):
        assert ours < 1.01 * theirs, name
        assert ours < 4e-3, name


@pytest.mark.parametrize("window", [None, 128])
def test_the_same_bits_in_every_run(window):
    ranges = key_ranges(jnp.asarray(tiny.segments([[400, 100], [3]], LENGTH)), window)
    arrays = tensors(dtype="bfloat16")
    first, second = (run(arrays, ranges, "pallas_tpu", window) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


def test_large_scores_stay_finite():
    q, *others = tensors()
    ranges = key_ranges(jnp.asarray(tiny.segments([[50, 200], []], LENGTH)), 128)
    for out in run((1e4 * q, *others), ranges, "pallas_tpu", 128):
        assert np.isfinite(out).all()


# --- cost ------------------------------------------------------------------------------------


def test_steps_out_of_range_are_not_visited():
    """A key that is visited but masked has weight zero, and zero times NaN is NaN."""
    segments = tiny.segments([[STEP, STEP, 2 * STEP], [LENGTH]], LENGTH)
    ranges = key_ranges(jnp.asarray(segments))
    q, k, v, cotangent = tensors()
    first_step = np.s_[:, :STEP]
    out, *_ = run((q, k, v.at[first_step].set(jnp.nan), cotangent), ranges, "pallas_tpu", None)
    finite = np.isfinite(out).all((2, 3))
    # Queries share a block with those of the first document, and blocks visit steps.
    assert not finite[0, :BLOCK].any() and finite[0, BLOCK:].all()
    assert not finite[1].any()
    arrays = q, k, v, cotangent.at[first_step].set(jnp.nan)
    _, _, _, dv = run(arrays, ranges, "pallas_tpu", None)
    assert np.isfinite(dv[0, BLOCK:]).all() and not np.isfinite(dv[1]).any((1, 2)).any()


# --- rotation --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("heads", "width"), [(2, 64), (4, 32), (1, 128)])
def test_rotation_is_the_plain_one(heads, width, dtype):
    x, cotangent, *_ = tensors(300, heads, width, dtype)
    positions = jnp.asarray([np.arange(300), np.arange(300) % 77])
    table = rope.rope_table(positions, 10_000.0, width)

    def both(turn):
        out, pull = jax.vjp(lambda x: turn(x, table), x)
        return out, *pull(cotangent)

    tolerance = {"float32": 1e-6, "bfloat16": 2e-2}[dtype]
    for a, b in zip(both(pallas_tpu.rotate), both(rope.rotate), strict=True):
        assert a.dtype == b.dtype
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=tolerance, rtol=0)
        if dtype == "bfloat16":
            assert (a != b).mean() < 0.01


def test_attention_rotates_first():
    segments = tiny.segments([[200, 56]], 256)
    ranges = key_ranges(jnp.asarray(segments), 128)
    q, k, v, _ = tensors(256, rows=1)
    table = rope.rope_table(jnp.asarray([[*range(200), *range(56)]]), 160_000.0, 64)
    got, want = (
        attention(q, k, v, ranges, window=128, rope=table, implementation=name)
        for name in ("pallas_tpu", "dense")
    )
    np.testing.assert_allclose(got, want, atol=4e-6)


# --- choice ----------------------------------------------------------------------------------


call = functools.partial(
    calls.call,
    platform="tpu",
    device_kind="TPU v5 lite",
    length=8192,
    heads=12,
    window=128,
    symmetric=True,
)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"heads": 7}, "7 heads of 64 per device do not fill tiles of 128 lanes; a multiple of 2"),
        ({"head_dim": 96}, "heads of 96 do not fill 128 lanes"),
        ({"dtype": "float16"}, "not float16"),
        ({"platform": "gpu"}, "it is for TPU"),
        ({"device_kind": "TPU v3"}, "older than v4"),
        ({"length": 65_536, "window": None}, "65536 tokens does not fit"),
        ({"device_kind": "TPU v4", "length": 16_384, "window": 4096}, "does not fit"),
        ({"keys": 262_144}, "262144 tokens does not fit"),
    ],
)
def test_refusals_say_why(changes, reason):
    with pytest.raises(UserError, match=reason):
        choose("pallas_tpu", call(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"window": None},
        {"window": None, "symmetric": False},
        {"window": None, "keys": 65_536},
        {"device_kind": "TPU v4", "window": None},
        {"heads": 1, "head_dim": 128},
    ],
)
def test_what_is_supported(changes):
    assert pallas_tpu.refuses(call(**changes)) is None


def test_an_odd_number_of_heads_falls_back_and_says_why():
    choice = choose("auto", call(heads=3))
    assert choice.name == "splash"
    assert "3 heads of 64 per device" in choice.why


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"dtype": "float32"}, "multiplies in bfloat16"),
        ({"head_dim": 32}, "heads of 64 or 128"),
        ({"symmetric": False}, "whole rows"),
        ({"keys": 16_384}, "whole rows"),
        ({"platform": "gpu"}, "it is for TPU"),
    ],
)
def test_splash_refuses(changes, reason):
    assert reason in splash.refuses(call(**changes))

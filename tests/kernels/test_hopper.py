"""The Hopper kernels: no races, nothing read before it is written, and the values of the oracle."""

import functools

import hopper
import jax
import jax.numpy as jnp
import numpy as np
import packings
import pytest

from modernbert_jax.attention import context, dense, key_ranges, pallas_hopper

LENGTH = 320
NAMES = ("out", "dq", "dk", "dv")

TILES = {
    "default": {},
    "wide": {"fwd_warpgroups": 2, "fwd_step": 128, "fwd_stages": 2, "dq_step": 128},
    "few stages": {"fwd_warpgroups": 2, "fwd_stages": 2, "dkv_stages": 2, "dq_stages": 2},
}


@functools.cache
def tensors(length=LENGTH, dtype="bfloat16"):
    rng = np.random.default_rng(0)
    return tuple(jnp.asarray(rng.standard_normal((2, length, 2, 64)), dtype) for _ in range(4))


def both(attention, q, k, v, cotangent, ranges):
    out, pull = jax.vjp(lambda *x: attention(*x, ranges, window=None), q, k, v)
    return out, *pull(cotangent)


oracle = jax.jit(functools.partial(both, dense.attention))


@functools.cache
def program(tiles):
    return jax.jit(
        functools.partial(both, functools.partial(pallas_hopper.attention, **TILES[tiles]))
    )


@pytest.fixture(scope="module", autouse=True)
def interpreter():
    with hopper.interpreter(detect_races=True):
        yield


def relation(segments, window=None, causal=False):
    ranges = key_ranges(jnp.asarray(segments), window, causal=causal)
    return ranges._replace(queries=ranges.transposed)


def compare(arrays, ranges, tiles="default"):
    want = oracle(*(x.astype("float32") for x in arrays), ranges)
    got = program(tiles)(*arrays, ranges)
    for name, a, b in zip(NAMES, got, want, strict=True):
        error = np.linalg.norm(np.asarray(a, np.float32) - b)
        assert error <= 6e-3 * np.linalg.norm(b), name


@pytest.mark.parametrize("case", range(3))
@pytest.mark.parametrize(
    ("tiles", "window"), [*((tiles, None) for tiles in TILES), ("default", 128), ("wide", 16)]
)
def test_the_worst_packings(tiles, window, case):
    compare(tensors(), relation(packings.worst_cases(LENGTH, 64)[case], window), tiles)


@pytest.mark.parametrize("window", [None, 64])
def test_the_causal_relation_has_other_ranges_for_the_backward_pass(window):
    compare(tensors(), relation(packings.worst_cases(LENGTH, 64)[2], window, causal=True))


def test_large_scores_stay_finite():
    q, *others = tensors()
    ranges = relation(packings.worst_cases(LENGTH, 64)[2], 128)
    for out in program("default")(1e4 * q, *others, ranges):
        assert np.isfinite(np.asarray(out, np.float32)).all()


def test_two_runs_agree_to_the_bit():
    ranges = relation(packings.worst_cases(LENGTH, 64)[0])
    first, second = (program("default")(*tensors(), ranges) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("window", [None, 128])
def test_steps_out_of_range_are_not_computed(window):
    """A computed step of NaN makes NaN even with weight zero, so what stays finite skipped it."""
    q, k, v, cotangent = tensors()
    poisoned = [x.at[:, 64:128].set(jnp.nan) for x in (v, cotangent)]
    ranges = relation(packings.worst_cases(LENGTH, 64)[1][1:].repeat(2, axis=0), window)
    out = program("default")(q, k, poisoned[0], cotangent, ranges)[0]
    grads = program("default")(q, k, v, poisoned[1], ranges)[1:]
    for arrays in ([out], grads):
        bad = sum(np.isnan(np.asarray(x, np.float32)).any((0, 2, 3)) for x in arrays) > 0
        np.testing.assert_array_equal(np.flatnonzero(bad), np.arange(64, 128))


def test_a_piece_of_a_row_sees_the_keys_of_the_whole_row():
    """The second piece of a row whose tokens two devices share."""
    piece = LENGTH // 2
    whole = key_ranges(jnp.asarray(packings.worst_cases(LENGTH, 64)[2]))
    q, k, v, cotangent = tensors()
    arrays = q[:, piece:], k, v, cotangent[:, piece:]
    compare(arrays, context.piece_of(whole, jnp.asarray(piece), piece))

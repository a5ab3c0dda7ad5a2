"""Queries and keys that are not the same tokens, or do not see each other, against the oracle."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import packings
import pytest
import tiny

from modernbert_jax.attention import (
    context,
    dense,
    key_ranges,
    pallas_tpu,
    pallas_triton,
    xla_range,
)

LENGTH, PIECE, HEADS, WIDTH = 512, 256, 2, 64
MODULES = {
    "dense": (dense, {}),
    "xla_range": (xla_range, {}),
    "pallas_tpu": (pallas_tpu, {"block": 256, "step": 128}),
    "pallas_triton": (pallas_triton, {}),
}
NAMES = ("out", "dq", "dk", "dv")


@functools.partial(jax.jit, static_argnames=("name", "window"))
def run(q, k, v, cotangent, ranges, name, window=None):
    """The output, and the gradients of q, k and v."""
    module, options = MODULES[name]

    def out(q, k, v):
        return module.attention(q, k, v, ranges, window=window, **options)

    value, pull = jax.vjp(out, q, k, v)
    return value, *pull(cotangent)


@functools.cache
def tensors(rows: int, length: int = LENGTH):
    rng = np.random.default_rng(0)
    shape = (rows, length, HEADS, WIDTH)
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for _ in range(4))


@functools.partial(jax.jit, static_argnames=("name", "window", "piece"))
def in_pieces(q, k, v, cotangent, ranges, name, window, piece):
    """Compute piece by piece, as on several devices; gradients of keys are summed."""
    pieces = []
    for offset in range(0, q.shape[1], piece):
        own = np.s_[:, offset : offset + piece]
        cut = context.piece_of(ranges, jnp.asarray(offset), piece)
        pieces.append(run(q[own], k, v, cotangent[own], cut, name, window))
    out, dq, dk, dv = zip(*pieces, strict=True)
    return jnp.concatenate(out, 1), jnp.concatenate(dq, 1), sum(dk), sum(dv)


@pytest.mark.parametrize("window", [None, 128])
@pytest.mark.parametrize("name", MODULES)
def test_the_pieces_of_a_row_make_the_row(name, window):
    for segments in packings.worst_cases(LENGTH, PIECE)[:: 2 if name == "pallas_triton" else 1]:
        ranges = key_ranges(jnp.asarray(segments), window)
        want = run(*tensors(2), ranges, "dense")
        got = in_pieces(*tensors(2), ranges, name, window, PIECE)
        for part, a, b in zip(NAMES, got, want, strict=True):
            np.testing.assert_allclose(a, b, atol=5e-6, rtol=0, err_msg=part)


@pytest.mark.parametrize("name", MODULES)
def test_pieces_that_no_block_divides(name):
    ranges = key_ranges(jnp.asarray(tiny.segments([[50, 91, 7]], 150)))
    arrays = tensors(1, 150)
    want = run(*arrays, ranges, "dense")
    for part, a, b in zip(NAMES, in_pieces(*arrays, ranges, name, None, 75), want, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6, rtol=0, err_msg=part)


def compare_on_tpu(segments, ranges, window):
    want = run(*tensors(2), ranges, "dense")
    got = run(*tensors(2), ranges, "pallas_tpu", window)
    for part, a, b in zip(NAMES, got, want, strict=True):
        np.testing.assert_allclose(a, b, atol=5e-6, rtol=0, err_msg=part)
        assert not np.asarray(a)[segments == 0].any(), f"{part} of padding"


@pytest.mark.parametrize("window", [None, 128])
def test_causal_masks_on_tpu(window):
    for segments in packings.worst_cases(LENGTH, 128):
        ranges = key_ranges(jnp.asarray(segments), window, causal=True)
        compare_on_tpu(segments, ranges, window)


@pytest.mark.parametrize("window", [None, 128])
def test_tokens_that_are_no_keys_on_tpu(window):
    segments = tiny.segments([[200, 150], [LENGTH]], LENGTH)
    hidden = np.zeros(segments.shape, bool)
    hidden[0, 20:200] = hidden[1, 300:] = True
    ranges = key_ranges(jnp.asarray(segments), window, visible=jnp.asarray(~hidden))
    compare_on_tpu(segments, ranges, window)


def test_a_piece_does_not_visit_other_documents():
    """A key that is visited but masked has weight zero, and zero times NaN is NaN."""
    ranges = key_ranges(jnp.asarray(tiny.segments([[PIECE, LENGTH - PIECE]], LENGTH)))
    q, k, v, _ = (x[:1] for x in tensors(2))
    cut = context.piece_of(ranges, jnp.asarray(PIECE), PIECE)
    v = v.at[:, :PIECE].set(jnp.nan)
    out = pallas_tpu.attention(q[:, PIECE:], k, v, cut, window=None, block=256, step=128)
    assert np.isfinite(out).all()

"""No races, nothing read before it is written, and the values of the oracle."""

import jax
import jax.numpy as jnp
import numpy as np
import packings
import pytest
import tiny

from modernbert_jax import rope
from modernbert_jax.attention import context, dense, key_ranges, pallas_tpu, splash

LENGTH, BLOCK, STEP = 768, 256, 128
SMALL = {
    pallas_tpu: {"block": BLOCK, "step": STEP},
    splash: {"block_q": BLOCK, "block_kv": STEP},
}


def tensors(rows: int, length: int, heads: int, width: int, dtype="float32"):
    rng = np.random.default_rng(0)
    shape = (rows, length, heads, width)
    return [jnp.asarray(rng.standard_normal(shape), dtype) for _ in range(4)]


def run(module, arrays, ranges, window):
    """The output, and the gradients of q, k and v."""

    @jax.jit
    def both(*arrays):
        *inputs, cotangent = arrays

        def out(q, k, v):
            options = SMALL.get(module, {})
            return module.attention(q, k, v, ranges, window=window, **options)

        value, pull = jax.vjp(out, *inputs)
        return value, *pull(cotangent)

    return both(*arrays)


def check(module, segments, window, heads=2, width=64, **kind):
    ranges = key_ranges(jnp.asarray(segments), window, **kind)
    compare(module, tensors(*segments.shape, heads, width), ranges, window)


def compare(module, arrays, ranges, window):
    for got, want in zip(
        run(module, arrays, ranges, window), run(dense, arrays, ranges, window), strict=True
    ):
        np.testing.assert_allclose(got, want, atol=5e-6, rtol=0)


@pytest.mark.usefixtures("tpu_interpreter")
@pytest.mark.parametrize("window", [None, 128, 200])
@pytest.mark.parametrize("case", range(3))
def test_our_kernels(case, window):
    check(pallas_tpu, packings.worst_cases(LENGTH, STEP)[case], window)


@pytest.mark.usefixtures("tpu_interpreter")
@pytest.mark.parametrize("window", [None, 128])
def test_a_length_that_no_block_divides(window):
    check(pallas_tpu, tiny.segments([[200, 100]], 300), window)


@pytest.mark.usefixtures("tpu_interpreter")
@pytest.mark.parametrize("window", [None, 128])
@pytest.mark.parametrize(("heads", "width"), [(4, 64), (4, 32), (1, 128)])
def test_heads(heads, width, window):
    check(pallas_tpu, tiny.segments([[200, 184]], 384), window, heads, width)


@pytest.mark.usefixtures("tpu_interpreter")
@pytest.mark.parametrize("window", [None, 128])
def test_causal_masks(window):
    check(pallas_tpu, tiny.segments([[200, 184]], 384), window, causal=True)


@pytest.mark.usefixtures("tpu_interpreter")
def test_queries_of_a_piece_of_the_row():
    ranges = key_ranges(jnp.asarray(packings.worst_cases(LENGTH, STEP)[2]))
    q, k, v, cotangent = tensors(2, LENGTH, 2, 64)
    own = np.s_[:, BLOCK : 2 * BLOCK]
    piece = context.piece_of(ranges, jnp.asarray(BLOCK), BLOCK)
    compare(pallas_tpu, (q[own], k, v, cotangent[own]), piece, None)


@pytest.mark.usefixtures("tpu_interpreter")
@pytest.mark.parametrize("window", [None, 128])
def test_splash(window):
    check(splash, packings.worst_cases(512, STEP)[2], window)


@pytest.mark.usefixtures("tpu_interpreter")
@pytest.mark.parametrize("length", [512, 300])
def test_rotation(length):
    x, cotangent, *_ = tensors(2, length, 4, 64, "bfloat16")
    table = rope.rope_table(jnp.asarray([np.arange(length)] * 2), 10_000.0, 64)
    results = []
    for turn in pallas_tpu.rotate, rope.rotate:
        out, pull = jax.vjp(jax.jit(lambda x, turn=turn: turn(x, table)), x)
        results.append((out, *pull(cotangent)))
    for got, want in zip(*results, strict=True):
        np.testing.assert_allclose(
            np.asarray(got, np.float32), np.asarray(want, np.float32), atol=2e-2, rtol=0
        )

"""Properties of `two_block` alone: derivatives of any kind, and work set by the window."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from modernbert_jax.attention import attention, key_ranges
from modernbert_jax.errors import UserError


def tensors(number: int, length: int):
    rng = np.random.default_rng(length)
    return [jnp.asarray(rng.standard_normal((1, length, 2, 8)), jnp.float32) for _ in range(number)]


def function(implementation, ranges, window):
    def out(q, k, v):
        return attention(q, k, v, ranges, window=window, implementation=implementation)

    return jax.jit(out)


@pytest.mark.parametrize(
    ("length", "window"), [(1, 2), (7, 1), (50, 7), (130, 6), (200, 140), (300, 129), (50, 999)]
)
def test_any_length_and_window(length, window):
    segments = jnp.asarray(
        tiny.segments([[length // 3, length - length // 3 - length // 5]], length)
    )
    ranges = key_ranges(segments, window)
    q, k, v = tensors(3, length)
    got, want = (function(name, ranges, window)(q, k, v) for name in ("two_block", "dense"))
    np.testing.assert_allclose(got, want, atol=2e-6)
    assert not np.asarray(got)[np.asarray(segments) == 0].any()


def test_forward_mode_equals_dense():
    ranges = key_ranges(jnp.asarray(tiny.segments([[90, 50]], 150)), 16)
    q, k, v, *tangents = tensors(6, 150)
    got, want = (
        jax.jvp(function(name, ranges, 16), (q, k, v), tuple(tangents))[1]
        for name in ("two_block", "dense")
    )
    np.testing.assert_allclose(got, want, atol=5e-6)


def test_second_derivatives_equal_dense():
    """Forward over reverse: the product of the Hessian with a direction."""
    ranges = key_ranges(jnp.asarray(tiny.segments([[20, 10]], 40)), 6)
    q, k, v, *tangents = tensors(6, 40)

    def product(name):
        def loss(q, k, v):
            return (function(name, ranges, 6)(q, k, v) ** 3).sum()

        return jax.jvp(jax.grad(loss, argnums=(0, 1, 2)), (q, k, v), tuple(tangents))[1]

    for got, want in zip(product("two_block"), product("dense"), strict=True):
        assert np.abs(want).max() > 1
        np.testing.assert_allclose(got, want, atol=5e-4)


def test_causal_windows():
    ranges = key_ranges(jnp.asarray(tiny.segments([[90, 50]], 150)), 16, causal=True)
    arrays = tensors(3, 150)
    got, want = (function(name, ranges, 16)(*arrays) for name in ("two_block", "dense"))
    np.testing.assert_allclose(got, want, atol=2e-6)


def test_whole_documents_are_refused():
    q, k, v = tensors(3, 8)
    ranges = key_ranges(jnp.ones((1, 8), jnp.int32))
    with pytest.raises(UserError, match="it computes sliding windows only"):
        attention(q, k, v, ranges, implementation="two_block")


def test_float32_stays_float32_on_accelerators():
    """They round the operands of products unless these ask for the highest precision."""
    x = jnp.ones((1, 64, 1, 16), jnp.float32)
    ranges = key_ranges(jnp.ones((1, 64), jnp.int32), 8)
    text = function("two_block", ranges, 8).lower(x, x, x).as_text()
    assert text.count("HIGHEST") >= 4

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modernbert_jax.norms import LayerNorm
from modernbert_jax.products import products


def compiled(x, kernels, forward_mode):
    """Products, and the gradients of x and the kernels for ones."""

    def both(x, kernels):
        out, back = jax.vjp(lambda x, k: products(x, k, forward_mode), x, kernels)
        return out, back(jax.tree.map(jnp.ones_like, out))

    return jax.jit(both).lower(x, kernels).compile()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_and_their_gradients(dtype):
    draw = np.random.default_rng(0).standard_normal
    x, kernels = jnp.asarray(draw((2, 24, 8)), dtype), jnp.asarray(draw((3, 8, 16)), dtype)
    fast, plain = (compiled(x, kernels, mode)(x, kernels) for mode in (False, True))
    for a, b in zip(jax.tree.leaves(fast), jax.tree.leaves(plain), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        close = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.02, "atol": 0.1}
        np.testing.assert_allclose(a.astype(np.float32), b.astype(np.float32), **close)


def test_forward_mode_stays_where_it_is_asked_for():
    x, kernels = jnp.ones((2, 4, 8)), jnp.ones((1, 8, 8))
    _, (tangent,) = jax.jvp(lambda x: products(x, kernels, True), (x,), (x,))
    np.testing.assert_array_equal(tangent, 8.0)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: products(x, kernels, False), (x,), (x,))


def test_the_gradient_of_a_kernel_is_no_product_along_columns():
    """Both operands with tokens first would be the slow form."""
    x, kernels = jnp.ones((1, 256, 64)), jnp.ones((2, 64, 96))
    text = compiled(x, kernels, False).as_text()
    assert "lhs_contracting_dims={0}" not in text
    assert "lhs_contracting_dims={0}" in compiled(x, kernels, True).as_text()


def test_norms_see_rows_and_tokens_as_one_axis():
    norm = LayerNorm(epsilon=1e-5, use_bias=False)
    x = jnp.asarray(np.random.default_rng(0).standard_normal((1, 16, 8)), jnp.float32)
    params = {"params": {"scale": jnp.arange(8.0)}}
    y = norm.apply(params, x)
    centred = x - x.mean(-1, keepdims=True)
    want = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * jnp.arange(8.0)
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-6)
    gradient = jax.make_jaxpr(jax.grad(lambda p, x: norm.apply(p, x)[0].sum(), (0, 1)))(params, x)
    reductions = [e for e in gradient.eqns if e.primitive.name == "reduce_sum"]
    assert reductions and {e.invars[0].aval.ndim for e in reductions} == {2}

"""Rotary embedding: its properties, and frequencies stored from transformers."""

import cases
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from modernbert_jax.architecture import RopeScaling
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.rope import inverse_frequencies, rope_table, rotate, rotate_by_products


def rotated(x, positions, theta=10_000.0, scaling=None):
    """`x` [T, H] at these positions."""
    table = rope_table(jnp.asarray(positions)[None], theta, x.shape[-1], scaling)
    return np.asarray(rotate(jnp.asarray(x)[None, :, None], table))[0, :, 0]


def test_rotation_is_complex_multiplication_of_the_halves():
    x = np.random.default_rng(0).standard_normal((50, 64)).astype(np.float32)
    positions = np.arange(50)
    angles = positions[:, None] * 10_000.0 ** (-np.arange(0, 64, 2) / 64)
    z = (x[:, :32] + 1j * x[:, 32:]) * np.exp(1j * angles)
    np.testing.assert_allclose(rotated(x, positions), np.hstack([z.real, z.imag]), atol=2e-5)


def test_position_zero_changes_nothing_and_norms_are_kept():
    x = np.random.default_rng(0).standard_normal((9, 32)).astype(np.float32)
    np.testing.assert_array_equal(rotated(x, np.zeros(9, int)), x)
    turned = rotated(x, np.arange(9) * 1000)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(x, axis=1), rtol=1e-6)


def test_products_depend_on_distance_alone():
    q, k = np.random.default_rng(0).standard_normal((2, 1, 64)).astype(np.float32)

    def product(i, j):
        return float(rotated(q, [i])[0] @ rotated(k, [j])[0])

    assert product(7, 3) == pytest.approx(product(107, 103), abs=1e-3)
    assert abs(product(7, 3) - product(3, 7)) > 0.1


def test_the_dtype_of_the_tensor_is_kept_and_the_rotation_is_float32():
    x = np.random.default_rng(0).standard_normal((1, 40, 1, 64))
    half = jnp.asarray(x, jnp.bfloat16)
    table = rope_table(jnp.arange(40)[None], 10_000.0, 64)
    got = rotate(half, table)
    assert got.dtype == jnp.bfloat16
    want = rotate(half.astype(jnp.float32), table).astype(jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(got, np.float32), np.asarray(want, np.float32))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_products_with_a_permutation_rotate_as_well(dtype, head_dim):
    rng = np.random.default_rng(0)
    x, g = jnp.asarray(rng.standard_normal((2, 3, 40, 2, head_dim)), dtype)
    table = rope_table(jnp.asarray(rng.integers(0, 8192, (3, 40))), 10_000.0, head_dim)
    got, want = (jax.vjp(lambda x: f(x, table), x) for f in (rotate_by_products, rotate))  # noqa: B023
    for a, b in ((got[0], want[0]), (got[1](g)[0], want[1](g)[0])):
        assert a.dtype == dtype
        np.testing.assert_array_equal(np.asarray(a, np.float32), np.asarray(b, np.float32))


def test_far_positions_are_exact_to_the_rounding_of_the_angle():
    """At 8,191 a float32 angle is off by at most 5e-4, whatever the frequency."""
    table = rope_table(jnp.asarray([[8191]]), 160_000.0, 64)
    angles = 8191 * 160_000.0 ** (-np.arange(0, 64, 2) / 64)
    np.testing.assert_allclose(table.cos[0, 0], np.cos(angles), atol=1e-3)
    np.testing.assert_allclose(table.sin[0, 0], np.sin(angles), atol=1e-3)


@pytest.mark.parametrize("name", cases.ROPES)
def test_scaled_frequencies_equal_transformers(name):
    golden = np.load(cases.FOLDER / "rope.npz")
    parameters = cases.ROPES[name]
    config = ModernBertConfig.from_hf(
        {"model_type": "modernbert", "rope_parameters": {"full_attention": parameters}}
    )
    theta, scaling = config.rope("full_attention")
    assert theta == parameters["rope_theta"] and scaling.rope_type == parameters["rope_type"]
    frequencies = inverse_frequencies(theta, 64, scaling)
    assert frequencies.dtype == np.float32
    np.testing.assert_allclose(frequencies, golden[name], rtol=1e-6)
    cos = rope_table(jnp.zeros((1, 1), jnp.int32), theta, 64, scaling).cos
    np.testing.assert_allclose(cos[0, 0], np.full(32, golden[f"{name}/factor"]), rtol=1e-6)


@pytest.mark.parametrize("theta", cases.THETAS)
@pytest.mark.parametrize("width", cases.HEAD_DIMS)
def test_plain_frequencies_equal_transformers_to_the_last_bit(theta, width):
    """But for one in 32 at most, by two units: PyTorch's power function is not always exact."""
    want = np.load(cases.FOLDER / "rope.npz")[f"plain/{theta:g}/{width}"]
    got = inverse_frequencies(theta, width, None)
    assert np.abs(got.view(np.int32) - want.view(np.int32)).max() <= 2
    assert (got != want).mean() <= 1 / 32


def test_scaling_by_one_changes_nothing():
    for kind in ("linear", "llama3", "yarn"):
        scaling = RopeScaling(
            rope_type=kind, factor=1.0, original_max_position_embeddings=512, high_freq_factor=4.0
        )
        got, want = (inverse_frequencies(10_000.0, 64, s) for s in (scaling, None))
        np.testing.assert_allclose(got, want, rtol=1e-6)


def test_linear_scaling_is_interpolation():
    scaling = RopeScaling(rope_type="linear", factor=4.0, original_max_position_embeddings=512)
    x = np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32)
    positions = np.arange(10)
    stretched = rotated(x, 4 * positions, scaling=scaling)
    np.testing.assert_allclose(stretched, rotated(x, positions), atol=1e-5)

"""Rotary position embedding (Su et al. 2021), the half-split form of ModernBERT.

Positions restart in every document, so packing does not change what a token sees.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.architecture import RopeScaling


class RopeTable(NamedTuple):
    """Cosines and sines of every token: float32 [B, T, H/2] each."""

    cos: jax.Array
    sin: jax.Array


def inverse_frequencies(theta: float, head_dim: int, scaling: RopeScaling | None) -> np.ndarray:
    """Radians per position of each rotated pair: float32 [H/2], theta^(-2k/H) before scaling.

    Exponent, power and reciprocal are each rounded to float32, as in PyTorch. One unit in the last
    place of a frequency rotates a token at position 8,192 by 1e-4 radians.
    """
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    plain = np.float32(1) / (theta ** exponent.astype(np.float64)).astype(np.float32)
    if scaling is not None:
        plain = _SCALE[scaling.rope_type](plain, theta, head_dim, scaling)
    return plain.astype(np.float32)


def rope_table(
    positions: jax.Array, theta: float, head_dim: int, scaling: RopeScaling | None = None
) -> RopeTable:
    """Cosines and sines of `positions` [B, T] in float32, for all layers of a kind."""
    angles = positions[..., None].astype(jnp.float32) * inverse_frequencies(
        theta, head_dim, scaling
    )
    factor = _attention_factor(scaling)
    return RopeTable(jnp.cos(angles) * factor, jnp.sin(angles) * factor)


def rotate(x: jax.Array, table: RopeTable) -> jax.Array:
    """Rotate `x` [B, T, N, H] by the table in float32; the result has the dtype of `x`."""
    left, right = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    cos, sin = table.cos[:, :, None], table.sin[:, :, None]
    rotated = jnp.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1)
    return rotated.astype(x.dtype)


def rotate_by_products(x: jax.Array, table: RopeTable) -> jax.Array:
    """`rotate` for CPU: an exact product with a permutation swaps the halves.

    XLA's CPU compiler would concatenate the halves element by element with branches, which takes
    several times as long.
    """
    half = np.eye(table.cos.shape[-1], dtype=np.float32)
    swap = np.kron([[0, 1], [1, 0]], half).astype(np.float32)
    cos, sin = table.cos @ np.hstack([half, half]), table.sin @ np.hstack([-half, half])
    x32 = x.astype(jnp.float32)
    return (x32 * cos[:, :, None] + (x32 @ swap) * sin[:, :, None]).astype(x.dtype)


def _linear(plain: np.ndarray, theta: float, head_dim: int, s: RopeScaling) -> np.ndarray:
    return plain / s.factor


def _yarn(plain: np.ndarray, theta: float, head_dim: int, s: RopeScaling) -> np.ndarray:
    """YaRN (Peng et al. 2023, section 3.2): fast pairs are kept, slow ones interpolated."""

    def pair_with(rotations: float) -> float:
        turns = s.original_max_position_embeddings / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(theta))

    low = max(math.floor(pair_with(s.beta_fast)), 0)
    high = min(math.ceil(pair_with(s.beta_slow)), head_dim - 1)
    ramp = np.clip((np.arange(len(plain)) - low) / max(high - low, 1e-3), 0, 1)
    return plain * (1 - ramp) + plain / s.factor * ramp


def _llama3(plain: np.ndarray, theta: float, head_dim: int, s: RopeScaling) -> np.ndarray:
    """Llama 3.1: scaled by wavelength in units of the original context."""
    wavelengths = s.original_max_position_embeddings * plain / (2 * math.pi)
    smooth = (wavelengths - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor)
    smooth = np.clip(smooth, 0, 1)
    return plain * smooth + plain / s.factor * (1 - smooth)


_SCALE = {"linear": _linear, "yarn": _yarn, "llama3": _llama3}


def _attention_factor(scaling: RopeScaling | None) -> float:
    if scaling is None or scaling.rope_type != "yarn":
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return 0.1 * math.log(scaling.factor) + 1.0

"""Initializers of weights: the research code's `full_megatron` scheme, and a uniform one.

In the scheme every weight is normal, truncated at `initializer_cutoff_factor` standard deviations
without variance correction. Layers that write into the residual stream start smaller, by
1/sqrt(2 L).
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from modernbert_jax.config import ModernBertConfig

Initializer = Callable[..., jax.Array]
Role = Literal["in", "out", "final"]


def standard_deviation(config: ModernBertConfig, role: Role) -> float:
    """Standard deviation of the normal distribution before truncation.

    Roles: "in" for embeddings, Wqkv, Wi and the head's dense layer; "out" for both Wo; "final" for
    an untied decoder or a classifier.
    """
    if role == "out":
        return config.initializer_range / (2 * config.num_hidden_layers) ** 0.5
    if role == "final":
        return config.hidden_size**-0.5
    return config.initializer_range


def truncated_normal(config: ModernBertConfig, role: Role) -> Initializer:
    """Initializer of a role: truncated normal with the scheme's standard deviation."""
    std, cut = standard_deviation(config, role), config.initializer_cutoff_factor

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return std * jax.random.truncated_normal(key, -cut, cut, shape, dtype)

    return init


def uniform(limit: float) -> Initializer:
    """Initializer with values between -limit and limit."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -limit, limit)

    return init

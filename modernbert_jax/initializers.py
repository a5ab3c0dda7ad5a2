"""Initial values: the research code's `full_megatron` scheme, by parameter path.

Every weight is a normal cut at `initializer_cutoff_factor` standard deviations, without variance
correction. What writes into the residual stream starts smaller, by 1/sqrt(2 L).
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp

from modernbert_jax.config import ModernBertConfig

Initializer = Callable[..., jax.Array]
Role = Literal["in", "out", "final"]


def standard_deviation(config: ModernBertConfig, role: Role) -> float:
    """Of the normal before it is cut.

    `in`: embeddings, Wqkv, Wi and the head's dense layer; `out`: both Wo; `final`: an untied
    decoder or a classifier.
    """
    if role == "out":
        return config.initializer_range / (2 * config.num_hidden_layers) ** 0.5
    if role == "final":
        return config.hidden_size**-0.5
    return config.initializer_range


def truncated_normal(config: ModernBertConfig, role: Role) -> Initializer:
    """An initializer for the role: truncated normal with the scheme's standard deviation."""
    std, cut = standard_deviation(config, role), config.initializer_cutoff_factor

    def init(key: jax.Array, shape: tuple[int, ...], dtype=jnp.float32) -> jax.Array:
        return std * jax.random.truncated_normal(key, -cut, cut, shape, dtype)

    return init

"""StableAdamW (Wortsman et al. 2023) in ModernBERT's variant, as an optax transformation."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from modernbert_jax.sharding import STACKED


class StableAdamWState(NamedTuple):
    """State of StableAdamW."""

    count: jax.Array  # type: ignore[assignment]  # a field, not the method of tuples
    """Number of steps so far, int32 scalar."""
    mu: Any
    """First moments, shaped like the parameters."""
    nu: Any
    """Second moments, shaped like the parameters."""


def stable_adamw(
    learning_rate: float | optax.Schedule,
    b1: float = 0.9,
    b2: float = 0.98,
    eps: float = 1e-6,
    weight_decay: float = 1e-5,
    peak_learning_rate: float | None = None,
    decay_mask: Any | Callable[[Any], Any] | None = None,
) -> optax.GradientTransformation:
    """Build AdamW with update clipping: a tensor's learning rate shrinks when its gradients spike.

    For each tensor, with bias-corrected moments m and v of the gradient g:

        rms = sqrt(mean(g^2 / max(v, eps^2)))
        lr' = lr / max(1, rms)
        p  <- p - lr' * (m / (sqrt(v) + eps) + weight_decay / peak * p)

    So weight decay does not depend on the peak learning rate. It follows the schedule and is scaled
    down together with the update. The mean is over a whole tensor of a checkpoint (Wqkv and both
    halves of Wi together), but never across the stack of layer groups.

    Args:
        learning_rate: a number, or a schedule over the number of steps so far, from 0.
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: share of a weight that a step at the peak learning rate removes.
        peak_learning_rate: the schedule's peak; a constant learning rate is its own peak.
        decay_mask: a tree of booleans, or a function from parameters to one; by default matrices
            and embeddings decay, norms and biases do not.

    Raises:
        ValueError: a schedule without `peak_learning_rate`.
    """
    if peak_learning_rate is None:
        if callable(learning_rate):
            raise ValueError(
                "a schedule needs peak_learning_rate: weight decay is scaled by lr / peak"
            )
        peak_learning_rate = learning_rate
    schedule = learning_rate if callable(learning_rate) else lambda count: learning_rate
    decay = weight_decay / peak_learning_rate if peak_learning_rate else 0.0

    def init(params):
        return StableAdamWState(
            jnp.zeros([], jnp.int32), optax.tree.zeros_like(params), optax.tree.zeros_like(params)
        )

    def update(grads, state, params=None):
        if params is None:
            raise ValueError("stable_adamw needs the parameters for weight decay")
        decays = decay_mask(params) if callable(decay_mask) else decay_mask
        decays = matrices(params) if decays is None else decays
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, grads)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, grads)
        rate = schedule(state.count)

        def leaf(path, p, g, m, v, decayed):
            m, v = m / _debias(b1, count), v / _debias(b2, count)
            axes = tuple(range(is_stacked(path), g.ndim))
            rms = jnp.sqrt(jnp.mean(g * g / jnp.maximum(v, eps * eps), axes, keepdims=True))
            step = m / (jnp.sqrt(v) + eps) + jnp.where(decayed, decay, 0.0) * p
            return (-rate / jnp.maximum(1.0, rms) * step).astype(p.dtype)

        updates = jax.tree_util.tree_map_with_path(leaf, params, grads, mu, nu, decays)
        return updates, StableAdamWState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def _debias(decay: float, count: jax.Array) -> jax.Array:
    """Return 1 - decay^count, computed without float32 cancellation at small counts."""
    return -jnp.expm1(count * math.log(decay))


def is_stacked(path: tuple) -> bool:
    """Return whether the parameter at a tree path is a stack with an entry per group of layers."""
    return any(getattr(key, "key", None) == STACKED for key in path)


def matrices(params: Any) -> Any:
    """Return a tree of booleans: true for matrices and embeddings, false for norms and biases."""

    def is_matrix(path, p):
        name = getattr(path[-1], "key", None) if path else None
        return p.ndim - is_stacked(path) >= 2 and name != "bias"

    return jax.tree_util.tree_map_with_path(is_matrix, params)

"""Layer-wise learning rates (Howard & Ruder 2018): smaller steps nearer to the input."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from modernbert_jax.errors import UserError

from .parameter_selection import Path


def multipliers(depths: Mapping[Path, np.ndarray], decay: float) -> dict[Path, np.ndarray]:
    """Return the factor of each parameter's learning rate: decay ^ (deepest - depth).

    It is 1 for the head, decay^(L - i) for layer i of L, and decay^(L + 1) for the embeddings.

    Args:
        depths: distance from the input by parameter path, [] or, for a stack, [G].
        decay: the factor between consecutive layers.

    Returns:
        float32 factors with the shapes of `depths`.

    Raises:
        UserError: a decay outside of (0, 1].
    """
    if not 0 < decay <= 1:
        raise UserError(f"layer_decay is {decay}; it must be more than 0 and at most 1")
    deepest = max(int(d.max()) for d in depths.values())
    return {
        path: np.asarray(np.float32(decay) ** np.float32(deepest - d)) for path, d in depths.items()
    }


def scaled(tx: optax.GradientTransformation, rates: Any) -> optax.GradientTransformation:
    """Scale the updates of an optimizer, including their weight decay.

    Args:
        tx: an optimizer that includes the learning rate.
        rates: a tree like the parameters, of factors [] or, for a stack [G, ...], [G].
    """

    def update(grads, state, params=None):
        updates, state = tx.update(grads, state, params)
        return jax.tree.map(_times, updates, rates), state

    return optax.GradientTransformation(tx.init, update)


def _times(x: jax.Array, rate: np.ndarray) -> jax.Array:
    rate = np.asarray(rate, np.float32)
    return (x * rate.reshape(*rate.shape, *(1 for _ in x.shape[rate.ndim :]))).astype(x.dtype)

"""Layer-wise learning rates (Howard & Ruder 2018): smaller steps nearer to the input."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import optax

from modernbert_jax.errors import UserError

from .parameter_selection import Path


def multipliers(depths: Mapping[Path, np.ndarray], decay: float) -> dict[Path, np.ndarray]:
    """What the learning rate of each parameter is multiplied with: decay ^ (deepest - depth).

    The head has 1, layer i of L decay^(L - i), the embeddings decay^(L + 1); float32 [] or, for a
    stack, [G]. Raises `UserError` for a decay outside of (0, 1].
    """
    if not 0 < decay <= 1:
        raise UserError(f"layer_decay is {decay}; it must be more than 0 and at most 1")
    deepest = max(int(d.max()) for d in depths.values())
    return {path: np.float32(decay) ** np.float32(deepest - d) for path, d in depths.items()}


def scaled(tx: optax.GradientTransformation, rates: Any) -> optax.GradientTransformation:
    """`tx` with its updates, and so the weight decay in them, multiplied.

    Args:
        tx: an optimizer, learning rate included.
        rates: a tree like the parameters, of [] or, along the stack of a parameter [G, ...], [G].
    """

    def update(grads, state, params=None):
        updates, state = tx.update(grads, state, params)
        return jax.tree.map(_times, updates, rates), state

    return optax.GradientTransformation(tx.init, update)


def _times(x: jax.Array, rate: np.ndarray) -> jax.Array:
    rate = np.asarray(rate, np.float32)
    return (x * rate.reshape(*rate.shape, *(1 for _ in x.shape[rate.ndim :]))).astype(x.dtype)

"""The residual stream of a pre-norm model, with a cheaper gradient on CPU.

Each half of a block adds the gradient that came back through its norm to that of the stream:

    g_i = g_(i+1) + norm_backward(d_i)

That is elementwise. XLA's CPU compiler merges it into every reader of g_i: several products and all
earlier gradients, each of which then recomputes every later one. An optimization barrier does not
prevent it, as barriers are removed before instructions are merged; a loop does.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.platform import device
from modernbert_jax.sharding import on_each_device


def stream(x: jax.Array, forward_mode: bool = False) -> jax.Array:
    """The identity on x [B, T, D], whose gradient is computed once and stored on CPU.

    Args:
        x: residual stream.
        forward_mode: whether forward-mode and higher derivatives must stay available. The stored
            gradient has reverse-mode derivatives of first order only.
    """
    return _stored_in_reverse(x) if not forward_mode and device()[0] == "cpu" else x


@jax.custom_vjp
def _stored_in_reverse(x: jax.Array) -> jax.Array:
    return x


_stored_in_reverse.defvjp(lambda x: (x, None), lambda _, gradient: (stored(gradient),))


def stored(arrays: Any) -> Any:
    """The identity on a tree of arrays [B, T, ...], which XLA computes once and holds in memory."""

    def on_one_device(arrays):
        # A loop of zero iterations (one that changes nothing for NaN) whose bound XLA cannot prove.
        count = jnp.isnan(jax.tree.leaves(arrays)[0].ravel()[0]).astype(jnp.int32)

        def change(i, arrays):
            return jax.tree.map(lambda x: jnp.where(i > 0, -x, x), arrays)

        return lax.fori_loop(0, count, change, arrays)

    return on_each_device(on_one_device, arrays)

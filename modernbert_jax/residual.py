"""The residual stream of a pre-norm model, and what its gradient costs on CPU.

Each half of a block adds to the stream's gradient what came back through its norm:

    g_i = g_(i+1) + norm_backward(d_i)

That is elementwise, and XLA's CPU compiler merges it into whatever reads g_i: several products, and
all the g below, each of which then computes every g above it again. An optimization barrier does
not stop it, being gone before instructions are merged; a loop does.
"""

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.attention.platform import device


@jax.custom_vjp
def stream(x: jax.Array) -> jax.Array:
    """x [B, T, D] itself; its gradient is computed once and held in memory."""
    return x


def _forward(x: jax.Array) -> tuple[jax.Array, None]:
    return x, None


def _backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (_held(gradient),)


stream.defvjp(_forward, _backward)


def _held(x: jax.Array) -> jax.Array:
    if device()[0] != "cpu" or jax.sharding.get_abstract_mesh().size > 1:
        return x
    # No turn, or one that changes nothing; the compiler can know neither.
    turns = jnp.isnan(x.ravel()[0]).astype(jnp.int32)
    return lax.fori_loop(0, turns, lambda i, x: jnp.where(i > 0, -x, x), x)

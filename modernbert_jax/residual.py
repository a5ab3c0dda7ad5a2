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
from modernbert_jax.sharding import on_each_device


def stream(x: jax.Array) -> jax.Array:
    """x [B, T, D] itself; on CPU its gradient is computed once and held in memory.

    There it has first-order reverse derivatives only, as `xla_range` has.
    """
    return _held_in_reverse(x) if device()[0] == "cpu" else x


@jax.custom_vjp
def _held_in_reverse(x: jax.Array) -> jax.Array:
    return x


def _backward(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return (on_each_device(_held, gradient),)


def _held(x: jax.Array) -> jax.Array:
    # No turn, or one that changes nothing; the compiler can know neither.
    turns = jnp.isnan(x.ravel()[0]).astype(jnp.int32)
    return lax.fori_loop(0, turns, lambda i, g: jnp.where(i > 0, -g, g), x)


_held_in_reverse.defvjp(lambda x: (x, None), _backward)

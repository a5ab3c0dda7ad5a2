"""Rotary embedding on TPU, on the tiles of the projections.

A lane's partner in the rotation is half a head away; two rolls of the register move it there:

    lanes          |  left  |  right |  left  |  right |      of the two heads in a tile
    table          |  cos   |  sin   |  cos   |  sin   |
    rolled left    |  right |  left  |  right |  left  |      for left lanes
    rolled right   |  right |  left  |  right |  left  |      for right lanes
    x cos + partner (-sin | sin)

Plain XLA moves half heads through memory, and takes longer than all of sliding-window attention.
The gradient is the rotation by the opposite angle.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from modernbert_jax.attention.tpu_tiles import LANES

BLOCK = 256
"""Number of tokens of a block, with all heads."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def rotate(x: jax.Array, table: jax.Array, head_dim: int, inverse: bool, interpret) -> jax.Array:
    """Rotate every head of `x` [B, T, N * H] in float32; the result has the dtype of `x`.

    Args:
        x: N * H is a multiple of 128.
        table: `lanes_table` of the angles; its gradient is not computed.
        head_dim: 32, 64 or 128.
        inverse: rotate by the opposite angles.
        interpret: as of `pallas_call`.
    """
    rows, length, width = x.shape
    here = pl.BlockSpec((1, BLOCK, width), lambda b, i: (b, i, 0))
    return pl.pallas_call(
        functools.partial(_kernel, half=head_dim // 2, inverse=inverse),
        grid=(rows, pl.cdiv(length, BLOCK)),
        in_specs=[pl.BlockSpec((1, BLOCK, LANES), lambda b, i: (b, i, 0)), here],
        out_specs=here,
        out_shape=jax.ShapeDtypeStruct(x.shape, x.dtype),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        name="rope",
        interpret=interpret,
    )(table, x)


rotate.defvjp(
    lambda x, table, *options: (rotate(x, table, *options), table),
    lambda head_dim, inverse, interpret, table, g: (
        rotate(g, table, head_dim, not inverse, interpret),
        None,
    ),
)


def lanes_table(cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Cosines and sines [B, T, H/2] side by side, repeated for all heads of 128 lanes."""
    both = jnp.concatenate([cos, sin], axis=-1)
    return jnp.tile(both, (1, 1, LANES // both.shape[-1]))


def _kernel(table, x, out, *, half, inverse):
    lane = lax.broadcasted_iota(jnp.int32, (x.shape[1], LANES), 1)
    left = lane % (2 * half) < half
    here, there = table[0], pltpu.roll(table[0], half, 1)
    cos, sin = jnp.where(left, here, there), jnp.where(left, there, here)
    sin = jnp.where(left != inverse, -sin, sin)
    for at in range(0, x.shape[2], LANES):
        tile = x[0, :, at : at + LANES].astype(jnp.float32)
        partner = jnp.where(left, pltpu.roll(tile, LANES - half, 1), pltpu.roll(tile, half, 1))
        out[0, :, at : at + LANES] = (tile * cos + partner * sin).astype(out.dtype)

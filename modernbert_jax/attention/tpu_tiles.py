"""Tiles of the TPU kernels: all heads that share 128 lanes, in the layout of the projections.

Projections return [B, T, N * H], whose 128-lane tiles hold two heads of 64 (one of 128, four of
32). Heads are not sliced out of a tile. Where lanes are contracted, the queries of a head are zero
in the lanes of the others; where lanes are the output, a transposed tile has a head in its rows:

         k [S, 128]       q_a' [128, T]              v' [128, S]        p_a [S, T]
        lanes   lanes        +-----+                +------------+       +-----+
        0..63  64..127       | q_a |                |   v_a'     |   x   |     |  =  o_a' [64, T]
        +------+------+      +-----+  = s_a [S, T]  +------------+       |     |
        |  k_a |  k_b |  x   |  0  |                |   v_b'     |       +-----+
        +------+------+      +-----+                +------------+

The matrix unit is 128 deep, so that a head of 64 costs the same without the zeros. Scores are
transposed, [keys, queries]: values of a query (its range, m, l, lse, delta) are then a row in a few
registers, and sums over keys cross no lanes.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

LANES = 128
"""Width of a vector register, and of the tiles of heads."""

MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)
"""Score of a key out of range; finite, because differences of infinities are NaN."""

UNSEEING = -MASKED
"""The lse of a query without keys, which makes its weights zero in the backward pass."""

NN, NT = (((1,), (0,)), ((), ())), (((1,), (1,)), ((), ()))
"""Dimensions that `matmul` contracts for a b and for a b'."""


def divisor(length: int, limit: int) -> int:
    """The largest multiple of 128 up to `limit`, but at least 128, that divides `length`."""
    sizes = range(LANES, max(limit, LANES) + 1, LANES)
    return max(size for size in sizes if length % size == 0)


def padded(x: jax.Array, fill: int = 0) -> jax.Array:
    """`x` [B, T, ...] padded with a value so that T is a multiple of 128."""
    more = -x.shape[1] % LANES
    return jnp.pad(x, ((0, 0), (0, more), *[(0, 0)] * (x.ndim - 2)), constant_values=fill)


def matmul(a: jax.Array, b: jax.Array, dimensions=NN) -> jax.Array:
    """Product accumulated in float32, of factors at full precision if they are float32."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(
        a, b, dimensions, precision=precision, preferred_element_type=jnp.float32
    )


def weigh(v_t: jax.Array, p: jax.Array) -> jax.Array:
    """v' p of a head, [H, S] by [S, T], without rounding p [S, T] from float32 first.

    For bfloat16 values it is still one pass of the matrix unit, as in jax's splash kernel.
    """
    precision = lax.Precision.HIGHEST if v_t.dtype == jnp.float32 else None
    return lax.dot(
        v_t.astype(jnp.float32), p, precision=precision, preferred_element_type=jnp.float32
    )


def heads_apart(x: jax.Array, head_dim: int) -> list[jax.Array]:
    """Copies of x [T, 128] for each head, zero in the lanes of the others."""
    if head_dim == LANES:
        return [x]
    head = lax.broadcasted_iota(jnp.int32, x.shape, 1) // head_dim
    return [jnp.where(head == g, x, jnp.zeros_like(x)) for g in range(LANES // head_dim)]


def head_rows(x_t: jax.Array, head_dim: int) -> list[jax.Array]:
    """Parts [H, T] of a transposed tile [128, T], one for each head."""
    return [x_t[at : at + head_dim] for at in range(0, LANES, head_dim)]


def allowed(bounds: jax.Array, start, keys: int) -> jax.Array:
    """Whether queries see each of `keys` keys from position `start` on: boolean [keys, T].

    Args:
        bounds: int32 [2, T], the first and last key of each query.
        start: a position, possibly negative.
        keys: a number.
    """
    first, last = bounds[0:1] - start, bounds[1:2] - start
    key = lax.broadcasted_iota(jnp.int32, (keys, bounds.shape[1]), 0)
    return (key >= first) & (key <= last)


def seeing(bounds: jax.Array) -> jax.Array:
    """Whether queries see any key: boolean [1, T] for bounds [2, T]."""
    return bounds[0:1] <= bounds[1:2]


def base_two(head_dim: int) -> float:
    """Factor from a product to the exponent of 2 in softmax: log2(e) / sqrt(H)."""
    return math.log2(math.e) * head_dim**-0.5

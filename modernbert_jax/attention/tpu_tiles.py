"""Tiles of the TPU kernels: queries of all heads that share 128 lanes, stacked as one matrix.

Projections end in [B, T, N * H], whose 128-lane tiles hold two heads of 64 (one of 128, four of
32). No head is cut out of its tile. Its queries keep their lanes and get zeros in the others', and
those of all heads are stacked; contracted over 128 lanes, every head sees its own keys only:

        k, v [S, 128]          q stacked [2 T, 128]        scores = k q' [S, 2 T]
       lanes 0..63  64..127        +------+------+          T of a   T of b
        +-------+-------+          | q_a  |  0   |         +--------+--------+
        |  k_a  |  k_b  |          +------+------+         | k_a q' | k_b q' |
        +-------+-------+          |  0   | q_b  |         +--------+--------+
                                   +------+------+
The matrix unit is 128 deep, so the zeros cost nothing that heads of 64 would not cost anyway.
Scores are transposed: what belongs to a query (its range, m, l, lse) is a row of few registers.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

LANES = 128
"""Width of a vector register, and of the tiles of heads."""

MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)
"""The score of a key out of range; finite, because infinities would meet and give NaN."""

UNSEEING = -MASKED
"""The lse of a query without keys: its weights come out as zero in the backward pass."""

NT, NN, TN = (((1,), (1,)), ((), ())), (((1,), (0,)), ((), ())), (((0,), (0,)), ((), ()))
"""Dimensions to contract for a b', a b and a' b."""


def matmul(a: jax.Array, b: jax.Array, dimensions=NN) -> jax.Array:
    """A product accumulated in float32, and exact to float32 for operands that are."""
    precision = lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return lax.dot_general(
        a, b, dimensions, precision=precision, preferred_element_type=jnp.float32
    )


def stack_heads(x: jax.Array, head_dim: int) -> jax.Array:
    """[T, 128] to [G T, 128]: the rows of each head, with zeros in the lanes of the others."""
    if head_dim == LANES:
        return x
    head = lax.broadcasted_iota(jnp.int32, x.shape, 1) // head_dim
    zero = jnp.zeros_like(x)
    return jnp.concatenate([jnp.where(head == g, x, zero) for g in range(LANES // head_dim)])


def scores(k: jax.Array, q: jax.Array, bounds: jax.Array, start) -> jax.Array:
    """Products [S, G T] of keys and stacked queries; `MASKED` out of range.

    Args:
        k: [S, 128].
        q: [G T, 128], stacked.
        bounds: int32 [2, T], the first and last key of each query.
        start: position of the first of `k`.
    """
    products = matmul(k, q, NT)
    first, last = bounds[0:1] - start, bounds[1:2] - start
    key = lax.broadcasted_iota(jnp.int32, (k.shape[0], bounds.shape[1]), 0)
    bias = jnp.where((key >= first) & (key <= last), 0.0, MASKED)
    return products + jnp.tile(bias, (1, q.shape[0] // bounds.shape[1]))


def heads_of(x: jax.Array, heads: int) -> list[jax.Array]:
    """[..., G T] to G times [..., T]."""
    return jnp.split(x, heads, axis=-1)


def beside(x: jax.Array) -> jax.Array:
    """[G, T], a row for each head, to [1, G T] as stacked queries have it."""
    return jnp.concatenate([x[g : g + 1] for g in range(x.shape[0])], axis=1)


def below(x: jax.Array, heads: int) -> jax.Array:
    """[1, G T] to [G, T]: `beside` undone."""
    return jnp.concatenate(heads_of(x, heads))


def over_lanes(x: jax.Array, head_dim: int) -> jax.Array:
    """[1, G T] to [128, T]: what belongs to a head, for each of its lanes."""
    heads = heads_of(x, LANES // head_dim)
    return jnp.concatenate([jnp.broadcast_to(h, (head_dim, h.shape[1])) for h in heads])


def times_heads(x: jax.Array, weights: jax.Array, head_dim: int) -> jax.Array:
    """x' weights, each head's lanes with its own weights: [S, 128], [S, G T] to [128, T]."""
    x, heads = x.T, heads_of(weights, LANES // head_dim)
    lanes = [x[g * head_dim : (g + 1) * head_dim] for g in range(len(heads))]
    return jnp.concatenate([matmul(a, b) for a, b in zip(lanes, heads, strict=True)])


def base_two(head_dim: int) -> float:
    """What turns a product into the exponent of 2 that softmax takes: log2(e) / sqrt(H)."""
    return math.log2(math.e) * head_dim**-0.5

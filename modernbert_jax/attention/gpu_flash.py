"""Attention on GPUs by three kernels: what they read of the ranges, and the derivative.

    fwd    queries        q  k  v                  ->  o  lse
    dkv    keys           q  k  v  do  lse  delta  ->  dk  dv        by the ranges transposed
    dq     queries        q  k  v  do  lse  delta  ->  dq

XLA computes delta = sum(o do). One program writes each result in a fixed order of sums, so that
runs repeat to the bit. A row whose length is not a multiple of the tiles is padded with tokens
without keys. First-order reverse differentiation only.
"""

import functools
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from modernbert_jax.attention.ranges import UNIT, KeyRanges


class Seen(NamedTuple):
    """What a kernel reads of the ranges of its own tokens: int32 each."""

    first: jax.Array
    last: jax.Array
    """Ranges [B, T] of the tokens; padding is empty."""
    bounds: jax.Array
    """Tiles of the other tokens [B, T / size, 4] that each tile of `size` tokens visits: start,
    start and stop of those that it sees whole, stop."""


class Kernels(Protocol):
    """The three kernels with their tiles. It is hashable."""

    @property
    def multiple(self) -> int:
        """Number that divides the lengths of all arrays."""

    def seen(self, ranges: KeyRanges) -> tuple[Any, Any, Any]:
        """What each kernel reads of the ranges, in the order fwd, dkv, dq."""

    def fwd(self, q, k, v, seen) -> tuple[jax.Array, jax.Array]:
        """o [B, T, N, H] and lse [B, N, T], the logarithm to base 2."""

    def dkv(self, q, k, v, do, lse, delta, seen) -> tuple[jax.Array, jax.Array]:
        """dk and dv [B, S, N, H]."""

    def dq(self, q, k, v, do, lse, delta, seen) -> jax.Array:
        """dq [B, T, N, H]."""


def attend(
    kernels: Kernels, q: jax.Array, k: jax.Array, v: jax.Array, ranges: KeyRanges
) -> jax.Array:
    """Attention [B, T, N, H] of q [B, T, N, H] and of k and v [B, S, N, H] over the ranges."""
    length = q.shape[1]
    q, k, v = (
        jnp.pad(x, ((0, 0), (0, -x.shape[1] % kernels.multiple), (0, 0), (0, 0))) for x in (q, k, v)
    )
    return _flash(kernels, q, k, v, kernels.seen(ranges))[:, :length]


def seen(ranges: KeyRanges, size: int, other: int, multiple: int) -> Seen:
    """Ranges for programs that compute `size` tokens and visit tiles of `other` tokens."""
    pad = ((0, 0), (0, -ranges.first.shape[1] % multiple))
    first = jnp.pad(ranges.first, pad, constant_values=1)
    last = jnp.pad(ranges.last, pad, constant_values=0)
    return Seen(first, last, bounds(ranges, size, other, first.shape[1] // size))


def bounds(ranges: KeyRanges, size: int, other: int, tiles: int) -> jax.Array:
    """`Seen.bounds` of a number of tiles; those beyond the ranges visit nothing."""
    # Tiles shorter than the unit of the summaries use those of the whole unit.
    start, count, full_first, full_last = ranges.blocks(max(size, UNIT), other)
    stop = start + count
    full_start = jnp.clip(full_first // other + (full_first % other > 0), start, stop)
    full_stop = jnp.clip((full_last + 1) // other, full_start, stop)
    result = jnp.stack([start, full_start, full_stop, stop], axis=-1)
    result = jnp.repeat(result, max(1, UNIT // size), axis=1)
    result = jnp.pad(result, ((0, 0), (0, max(0, tiles - result.shape[1])), (0, 0)))
    return result[:, :tiles]


def like(x: jax.Array) -> jax.ShapeDtypeStruct:
    """The shape of a result like `x`."""
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def lse_of(q: jax.Array) -> jax.ShapeDtypeStruct:
    """The shape of lse [B, N, T] for queries [B, T, N, H]."""
    return jax.ShapeDtypeStruct((q.shape[0], q.shape[2], q.shape[1]), jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(kernels, q, k, v, seen):
    return _forward(kernels, q, k, v, seen)[0]


def _forward(kernels, q, k, v, seen):
    o, lse = kernels.fwd(q, k, v, seen[0])
    return o, (q, k, v, seen, o, lse)


def _backward(kernels, residuals, do):
    q, k, v, seen, o, lse = residuals
    delta = jnp.sum(o.astype(jnp.float32) * do.astype(jnp.float32), -1).swapaxes(1, 2)
    dk, dv = kernels.dkv(q, k, v, do, lse, delta, seen[1])
    return kernels.dq(q, k, v, do, lse, delta, seen[2]), dk, dv, None


_flash.defvjp(_forward, _backward)

"""Attention over key ranges on GPU, in Pallas-Triton, for sliding and full layers.

This module calls the three kernels of `triton_kernels`: it prepares the ranges, divides the work
among programs and defines the derivative. A program computes one tile of tokens of one head:

    fwd    queries        q  k  v                  ->  o  lse
    dkv    keys           q  k  v  do  lse  delta  ->  dk  dv        by the ranges transposed
    dq     queries        q  k  v  do  lse  delta  ->  dq

XLA computes delta = sum(o do). One program writes each result in a fixed order of sums, so that
runs repeat to the bit. A row whose length is not a multiple of the tiles is padded with tokens
without keys. First-order reverse differentiation only.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.ranges import UNIT, KeyRanges
from modernbert_jax.attention.triton_kernels import attention_dkv, attention_dq, attention_fwd
from modernbert_jax.attention.triton_tiles import OPTIONS, SWEEP, Tiles, tiles_for, widths
from modernbert_jax.platform import interpreted

__all__ = ["OPTIONS", "SWEEP", "attention", "refuses"]


def refuses(call: Call) -> str | None:
    """The reason why a call is not supported, or None."""
    if call.platform == "tpu" or (call.platform == "gpu" and "NVIDIA" not in call.device_kind):
        return f"it is for NVIDIA GPUs, not {call.device_kind}"
    if call.capability is not None and call.capability < (8, 0):
        return f"it needs compute capability 8.0, and {call.device_kind} is older"
    if call.dtype not in ("bfloat16", "float16", "float32"):
        return f"it computes in 16 or 32 bits, not in {call.dtype}"
    if call.head_dim not in widths(call.dtype):
        known = ", ".join(map(str, widths(call.dtype)))
        return f"heads of {call.head_dim} in {call.dtype}; it has tiles for {known}"
    return None


class _Seen(NamedTuple):
    """Ranges of the tokens [B, T], and bounds of each tile of them [B, T / size, 4]."""

    first: jax.Array
    last: jax.Array
    bounds: jax.Array


class _Static(NamedTuple):
    tiles: Tiles
    split: bool
    """Whether whole tiles are computed without a mask. It does not pay for windows, which have few
    whole tiles, nor in float32, which leaves few registers."""
    interpret: bool


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    ranges: KeyRanges,
    *,
    window: int | None,
    **options: int,
) -> jax.Array:
    """Attention [B, T, N, H] over the ranges.

    Args:
        q: [B, T, N, H].
        k, v: [B, S, N, H].
        options: by the names of `OPTIONS`, in place of the default tiles.

    Raises:
        UserError: a size that is no power of two, or too small.
    """
    tiles = tiles_for(str(q.dtype), q.shape[3], options)
    length, largest = q.shape[1], max(size for tile in tiles for size in tile[:2])
    q, k, v = (jnp.pad(x, ((0, 0), (0, -x.shape[1] % largest), (0, 0), (0, 0))) for x in (q, k, v))
    seen = (
        _seen(ranges, tiles.fwd.q, tiles.fwd.k, largest),
        _seen(ranges.transposed, tiles.dkv.k, tiles.dkv.q, largest),
        _seen(ranges, tiles.dq.q, tiles.dq.k, largest),
    )
    split = window is None and q.dtype != jnp.float32
    static = _Static(tiles, split, interpreted())
    return _flash(static, q, k, v, seen)[:, :length]


def _seen(ranges: KeyRanges, size: int, other: int, largest: int) -> _Seen:
    """Ranges for programs that compute `size` tokens and visit tiles of `other` tokens."""
    pad = -ranges.first.shape[1] % largest
    first = jnp.pad(ranges.first, ((0, 0), (0, pad)), constant_values=1)
    last = jnp.pad(ranges.last, ((0, 0), (0, pad)), constant_values=0)
    # Tiles shorter than the unit of the summaries use those of the whole unit.
    start, count, full_first, full_last = ranges.blocks(max(size, UNIT), other)
    stop = start + count
    full_start = jnp.clip(full_first // other + (full_first % other > 0), start, stop)
    full_stop = jnp.clip((full_last + 1) // other, full_start, stop)
    bounds = jnp.stack([start, full_start, full_stop, stop], axis=-1)
    bounds = jnp.repeat(bounds, max(1, UNIT // size), axis=1)
    tiles = first.shape[1] // size
    bounds = jnp.pad(bounds, ((0, 0), (0, max(0, tiles - bounds.shape[1])), (0, 0)))
    return _Seen(first, last, bounds[:, :tiles])


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(static, q, k, v, seen):
    return _forward(static, q, k, v, seen)[0]


def _forward(static, q, k, v, seen):
    own, whole = _specs(q, k, static.tiles.fwd.q)
    lse = jax.ShapeDtypeStruct((q.shape[0], q.shape[2], q.shape[1]), jnp.float32)
    o, lse = _call(
        attention_fwd,
        static,
        static.tiles.fwd,
        in_specs=[own.wide, whole.wide, whole.wide, *own.seen],
        out_specs=[own.wide, own.thin],
        out_shape=[_like(q), lse],
    )(q, k, v, *seen[0])
    return o, (q, k, v, seen, o, lse)


def _backward(static, residuals, do):
    q, k, v, seen, o, lse = residuals
    delta = jnp.sum(o.astype(jnp.float32) * do.astype(jnp.float32), -1).swapaxes(1, 2)
    own, whole = _specs(k, q, static.tiles.dkv.k)
    dk, dv = _call(
        attention_dkv,
        static,
        static.tiles.dkv,
        in_specs=[whole.wide, own.wide, own.wide, whole.wide, whole.thin, whole.thin, *own.seen],
        out_specs=[own.wide, own.wide],
        out_shape=[_like(k), _like(v)],
    )(q, k, v, do, lse, delta, *seen[1])
    own, whole = _specs(q, k, static.tiles.dq.q)
    dq = _call(
        attention_dq,
        static,
        static.tiles.dq,
        in_specs=[own.wide, whole.wide, whole.wide, own.wide, own.thin, own.thin, *own.seen],
        out_specs=[own.wide],
        out_shape=[_like(q)],
    )(q, k, v, do, lse, delta, *seen[2])
    return *dq, dk, dv, None


_flash.defvjp(_forward, _backward)


class _Specs(NamedTuple):
    wide: pl.BlockSpec
    thin: pl.BlockSpec
    seen: tuple[pl.BlockSpec, ...] = ()


def _specs(x, others, size):
    """Blocks of [B, T, N, H], [B, N, T] and `_Seen` for a program: its tile, or all tokens."""
    length, width = others.shape[1], x.shape[3]
    own = _Specs(
        pl.BlockSpec((None, size, None, width), lambda i, b, n: (b, i, n, 0)),
        pl.BlockSpec((None, None, size), lambda i, b, n: (b, n, i)),
        (
            *[pl.BlockSpec((None, size), lambda i, b, n: (b, i))] * 2,
            pl.BlockSpec((None, None, 4), lambda i, b, n: (b, i, 0)),
        ),
    )
    whole = _Specs(
        pl.BlockSpec((None, length, None, width), lambda i, b, n: (b, 0, n, 0)),
        pl.BlockSpec((None, None, length), lambda i, b, n: (b, n, 0)),
    )
    return own, whole


def _call(kernel, static, tile, *, out_specs, out_shape, **specs):
    rows, length, heads, _ = out_shape[0].shape
    return pl.pallas_call(
        functools.partial(kernel, tile=tile, split=static.split),
        grid=(length // out_specs[0].block_shape[1], rows, heads),
        out_specs=out_specs,
        out_shape=out_shape,
        compiler_params=plgpu.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
        interpret=static.interpret,
        name=kernel.__name__,
        **specs,
    )


def _like(x):
    return jax.ShapeDtypeStruct(x.shape, x.dtype)

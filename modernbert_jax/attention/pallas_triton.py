"""FlashAttention-2 over key ranges on GPU, in Pallas-Triton: for sliding and full layers alike.

A program owns one tile of queries of one head and walks along the tiles of keys that any of them
sees (Dao 2023, algorithm 1). Which these are was read from the ranges, once for all layers; in full
layers tiles that every query sees whole are computed without a mask:

                   tile of keys   0    1    2    3    4    5
            a tile of queries  |    | // | ## | ## | // |    |
                                     ^    ^         ^    ^
                                  start  full_start  |   stop
                                                full_stop
    fwd  s = q k'; m, l and o follow the running maximum; lse = m + log2 l
    dkv  a program owns a tile of keys and walks along the queries that see them:
         p = 2^(s - lse); dv += p' do; ds = p (do v' - delta); dk += ds' q
    dq   a program owns a tile of queries again: dq += ds k

Scores are in units of log2 e, so that 2^x replaces e^x. XLA computes delta = sum(o do). All sums
are float32; p and ds are rounded to the type of the inputs only as operands of a product. One
program writes each result, in a fixed order of sums: runs repeat to the bit. A row whose length is
no multiple of the tiles is padded with tokens that see nothing. First-order reverse
differentiation only.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.platform import interpreted
from modernbert_jax.attention.ranges import KeyRanges
from modernbert_jax.attention.triton_tiles import OPTIONS as OPTIONS
from modernbert_jax.attention.triton_tiles import SWEEP as SWEEP
from modernbert_jax.attention.triton_tiles import Tiles, tiles_for, widths

_MASKED = -1e30
"""Finite, so that a tile in which a query sees nothing gives no NaN."""


def refuses(call: Call) -> str | None:
    """Why this call is left to another implementation."""
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
    """Ranges of the tokens [B, T], and of each tile of them the bounds [B, T / size, 4]."""

    first: jax.Array
    last: jax.Array
    bounds: jax.Array


class _Static(NamedTuple):
    tiles: Tiles
    split: bool
    """Whether whole tiles go without a mask. Windows leave few of them, float32 few registers."""
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
        options: by the names of `OPTIONS`, in place of the default tiles.

    Raises:
        UserError: a size that is no power of two, or too small.
    """
    tiles = tiles_for(str(q.dtype), q.shape[3], options)
    length = q.shape[1]
    pad = -length % max(size for tile in tiles for size in tile[:2])
    q, k, v = (jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))) for x in (q, k, v))
    seen = (
        _seen(ranges, tiles.fwd.q, tiles.fwd.k, pad),
        _seen(ranges.transposed, tiles.dkv.k, tiles.dkv.q, pad),
        _seen(ranges, tiles.dq.q, tiles.dq.k, pad),
    )
    split = window is None and q.dtype != jnp.float32
    static = _Static(tiles, split, interpreted())
    return _flash(static, q, k, v, seen)[:, :length]


def _seen(ranges: KeyRanges, size: int, other: int, pad: int) -> _Seen:
    """Reads the ranges for programs that own `size` tokens and visit tiles of `other`."""
    first = jnp.pad(ranges.first, ((0, 0), (0, pad)), constant_values=1)
    last = jnp.pad(ranges.last, ((0, 0), (0, pad)), constant_values=0)
    start, count, full_first, full_last = ranges.blocks(size, other)
    stop = start + count
    full_start = jnp.clip(full_first // other + (full_first % other > 0), start, stop)
    full_stop = jnp.clip((full_last + 1) // other, full_start, stop)
    bounds = jnp.stack([start, full_start, full_stop, stop], axis=-1)
    tail = first.shape[1] // size - start.shape[1]
    return _Seen(first, last, jnp.pad(bounds, ((0, 0), (0, tail), (0, 0))))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _flash(static, q, k, v, seen):
    return _forward(static, q, k, v, seen)[0]


def _forward(static, q, k, v, seen):
    own, whole = _specs(q, static.tiles.fwd.q)
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
    own, whole = _specs(k, static.tiles.dkv.k)
    dk, dv = _call(
        attention_dkv,
        static,
        static.tiles.dkv,
        in_specs=[whole.wide, own.wide, own.wide, whole.wide, whole.thin, whole.thin, *own.seen],
        out_specs=[own.wide, own.wide],
        out_shape=[_like(k), _like(v)],
    )(q, k, v, do, lse, delta, *seen[1])
    own, whole = _specs(q, static.tiles.dq.q)
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


def attention_fwd(*refs, tile, split):
    """o and lse of a tile of queries."""
    q_ref, k_ref, v_ref, first_ref, last_ref, bounds_ref, o_ref, lse_ref = refs
    q, first, last = (plgpu.load(ref) for ref in (q_ref, first_ref, last_ref))
    scale = _log2_scale(q)

    def step(j, carry, masked):
        o, m, l = carry  # noqa: E741, as in the paper
        at = pl.ds(j * tile.k, tile.k)
        k, v = plgpu.load(k_ref.at[at]), plgpu.load(v_ref.at[at])
        s = _dot(q, k.T) * scale
        if masked:
            s = jnp.where(_within(j, tile.k, first, last), s, _MASKED)
        m_next = jnp.maximum(m, jnp.max(s, axis=1))
        p = jnp.exp2(s - m_next[:, None])
        shrink = jnp.exp2(m - m_next)
        o = o * shrink[:, None] + _dot(p.astype(v.dtype), v)
        return o, m_next, l * shrink + jnp.sum(p, axis=1)

    zeros, lowest = jnp.zeros(q.shape, jnp.float32), jnp.full((tile.q,), _MASKED, jnp.float32)
    start = zeros, lowest, jnp.zeros((tile.q,), jnp.float32)
    o, m, l = _walk(bounds_ref, split, step, start)  # noqa: E741
    empty = first > last
    l = jnp.where(empty, 1.0, l)  # noqa: E741
    o = jnp.where(empty[:, None], 0.0, o / l[:, None])
    plgpu.store(o_ref, o.astype(o_ref.dtype))
    plgpu.store(lse_ref, m + jnp.log2(l))


def attention_dkv(*refs, tile, split):
    """dk and dv of a tile of keys."""
    q_ref, k_ref, v_ref, do_ref, lse_ref, delta_ref = refs[:6]
    first_ref, last_ref, bounds_ref, dk_ref, dv_ref = refs[6:]
    k, v, first, last = (plgpu.load(ref) for ref in (k_ref, v_ref, first_ref, last_ref))
    scale = _log2_scale(k)

    def step(i, carry, masked):
        dk, dv = carry
        at = pl.ds(i * tile.q, tile.q)
        q, do = plgpu.load(q_ref.at[at]), plgpu.load(do_ref.at[at])
        lse, delta = plgpu.load(lse_ref.at[at]), plgpu.load(delta_ref.at[at])
        p = jnp.exp2(_dot(k, q.T) * scale - lse[None])
        if masked:
            p = jnp.where(_within(i, tile.q, first, last), p, 0.0)
        dv += _dot(p.astype(do.dtype), do)
        ds = p * (_dot(v, do.T) - delta[None])
        return dk + _dot(ds.astype(q.dtype), q), dv

    zeros = jnp.zeros(k.shape, jnp.float32)
    dk, dv = _walk(bounds_ref, split, step, (zeros, zeros))
    plgpu.store(dk_ref, (dk * k.shape[1] ** -0.5).astype(dk_ref.dtype))
    plgpu.store(dv_ref, dv.astype(dv_ref.dtype))


def attention_dq(*refs, tile, split):
    """dq of a tile of queries."""
    q_ref, k_ref, v_ref, do_ref, lse_ref, delta_ref = refs[:6]
    first_ref, last_ref, bounds_ref, dq_ref = refs[6:]
    q, do, lse, delta = (plgpu.load(ref) for ref in (q_ref, do_ref, lse_ref, delta_ref))
    first, last = plgpu.load(first_ref), plgpu.load(last_ref)
    scale = _log2_scale(q)

    def step(j, dq, masked):
        at = pl.ds(j * tile.k, tile.k)
        k, v = plgpu.load(k_ref.at[at]), plgpu.load(v_ref.at[at])
        p = jnp.exp2(_dot(q, k.T) * scale - lse[:, None])
        if masked:
            p = jnp.where(_within(j, tile.k, first, last), p, 0.0)
        ds = p * (_dot(do, v.T) - delta[:, None])
        return dq + _dot(ds.astype(k.dtype), k)

    dq = _walk(bounds_ref, split, step, jnp.zeros(q.shape, jnp.float32))
    plgpu.store(dq_ref, (dq * q.shape[1] ** -0.5).astype(dq_ref.dtype))


def _walk(bounds_ref, split, step, carry):
    """`step(tile, carry, masked)` over the visited tiles; if `split`, a mask only at both ends."""
    start, full_start, full_stop, stop = (bounds_ref[n] for n in range(4))
    legs = [(start, full_start, True), (full_start, full_stop, False), (full_stop, stop, True)]
    for low, high, masked in legs if split else [(start, stop, True)]:
        carry = lax.fori_loop(low, high, functools.partial(step, masked=masked), carry)
    return carry


def _within(i, size, first, last):
    """Whether each token's range holds each token of tile `i`: boolean [tokens, size]."""
    there = i * size + jnp.arange(size)
    return (there[None] >= first[:, None]) & (there[None] <= last[:, None])


def _log2_scale(x):
    return x.shape[1] ** -0.5 * math.log2(math.e)


def _dot(a, b):
    """Float32 stays float32: tensor cores, which round it to ten bits, multiply three parts."""
    precision = None
    if a.dtype == jnp.float32 and not interpreted():
        precision = lax.DotAlgorithmPreset.TF32_TF32_F32_X3
    return plgpu.dot(a, b, precision=precision)


class _Specs(NamedTuple):
    wide: pl.BlockSpec
    thin: pl.BlockSpec
    seen: tuple[pl.BlockSpec, ...] = ()


def _specs(x, size):
    """How a program sees [B, T, N, H], [B, N, T] and a `_Seen`: its own tile, or every token."""
    length, width = x.shape[1], x.shape[3]
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

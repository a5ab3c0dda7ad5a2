"""Attention over whole documents on TPU: flash attention that visits the blocks in range only.

A row's keys stay in VMEM while its blocks of queries come by, and a loop with bounds read at run
time goes over the key steps that some query of the block sees. Nothing else costs a cycle:

    keys in steps   0   1   2   3   4   5   6   7       row: | doc A  | doc B     | doc C | pad
    queries 0       x   x   x   .   .   .   .   .       blocks are two steps wide
            1       x   x   x   x   x   .   .   .       x  visited: start[1] = 0, count[1] = 5
            2       .   .   x   x   x   x   x   .       .  never touched
            3       .   .   .   .   .   x   x   .

    forward, a block of queries by steps of keys:
        s = k q'    m' = max(m, max s)    p = 2^(c (s - m'))    a = 2^(c (m - m'))
        l = a l + sum p    o' = a o' + v' p    m = m'        at last o' / l and lse = c m + log2 l
    backward, a block of keys by steps of queries, the same ones, as the ranges are symmetric:
        p = 2^(c s - lse)    ds = p (v do' - delta)    delta = sum of o do over a head's lanes
        dv' += do' p'    dk' += c q' ds'    dq' += k' ds, kept for a whole row
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from modernbert_jax.attention.tpu_tiles import (
    LANES,
    MASKED,
    NT,
    UNSEEING,
    allowed,
    base_two,
    head_rows,
    heads_apart,
    matmul,
    seeing,
    weigh,
)

CHUNK = 128
"""Queries whose scores with a step of keys are computed together, for one head at a time."""


class Visits(NamedTuple):
    """Steps that each block visits, `count` of them from `start` on: int32 [B * T / block] each."""

    start: jax.Array
    count: jax.Array


def vmem_bytes(length: int, dtype: jnp.dtype, buffers: int) -> int:
    """Vector memory that the backward kernel takes for rows of `length`; the forward takes less.

    It holds q, do, dq and the sum of dq, whole rows of a tile; 3.5 MiB of blocks and scores were
    measured by compiling.
    """
    row = length * LANES
    return (2 * buffers + 2) * row * dtype.itemsize + 4 * row + 7 * 2**19


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8))
def global_attention(
    q, k, v, bounds, visits: Visits, head_dim: int, block: int, buffers: int, interpret
):
    """Attention over symmetric ranges.

    Args:
        q, k, v: [B, T, N * H], T a multiple of `block`, N * H one of 128.
        bounds: int32 [B, T / step, 2, step], the first and last key of each query.
        visits: for blocks of `block` queries, the steps of keys in range.
        head_dim: 32, 64 or 128.
        block: a multiple of the step.
        buffers: 2 loads the next row during this one; 1 takes less memory.
        interpret: as of `pallas_call`.

    Returns:
        [B, T, N * H]; zeros for queries without keys.
    """
    options = head_dim, block, buffers, interpret
    return _global_forward(q, k, v, bounds, visits, *options)[0]


class _Specs:
    """Blocks for a grid of (row, tile of heads, block)."""

    def __init__(self, length: int, block: int, step: int, heads: int, buffers: int):
        steps, mode = block // step, pl.Buffered(buffers)
        self.here = pl.BlockSpec((1, block, LANES), lambda b, t, i, *_: (b, i, t))
        self.row = pl.BlockSpec((1, length, LANES), lambda b, t, i, *_: (b, 0, t))
        self.loaded_row = pl.BlockSpec(
            (1, length, LANES), lambda b, t, i, *_: (b, 0, t), pipeline_mode=mode
        )
        self.bounds_here = pl.BlockSpec((1, steps, 2, step), lambda b, t, i, *_: (b, i, 0, 0))
        self.bounds_row = pl.BlockSpec(
            (1, length // step, 2, step), lambda b, t, i, *_: (b, 0, 0, 0), pipeline_mode=mode
        )
        self.lse_here = pl.BlockSpec(
            (1, 1, steps, heads, step), lambda b, t, i, *_: (b, t, i, 0, 0)
        )
        self.lse_row = pl.BlockSpec(
            (1, 1, length // step, heads, step),
            lambda b, t, i, *_: (b, t, 0, 0, 0),
            pipeline_mode=mode,
        )


def _call(
    kernel, q, block, buffers, *, name, in_specs, out_specs, out_shape, scratch_shapes, **options
):
    rows, length, width = q.shape
    return pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(rows, width // LANES, length // block),
            in_specs=in_specs,
            out_specs=out_specs,
            scratch_shapes=scratch_shapes,
        ),
        out_shape=out_shape,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=max(16 * 2**20, vmem_bytes(length, q.dtype, buffers)),
        ),
        name=f"global_attention_{name}",
        **options,
    )


def _global_forward(q, k, v, bounds, visits, head_dim, block, buffers, interpret):
    rows, length, width = q.shape
    step, heads = bounds.shape[-1], LANES // head_dim
    at = _Specs(length, block, step, heads, buffers)
    o, lse = _call(
        functools.partial(_forward_kernel, head_dim=head_dim),
        q,
        block,
        buffers,
        name="forward",
        in_specs=[at.bounds_here, at.here, at.loaded_row, at.loaded_row],
        out_specs=[at.here, at.lse_here],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((rows, width // LANES, length // step, heads, step), jnp.float32),
        ],
        scratch_shapes=[pltpu.VMEM((LANES, block), jnp.float32)],
        interpret=interpret,
    )(*visits, bounds, q, k, v)
    return o, (q, k, v, bounds, visits, o, lse)


def _forward_kernel(start, count, bounds, q, k, v, o, lse, o_t, *, head_dim):
    i, c = pl.program_id(2), base_two(head_dim)
    n = pl.program_id(0) * pl.num_programs(2) + i
    block, step, heads = q.shape[1], bounds.shape[-1], LANES // head_dim
    chunks = _chunks(block, step)
    qs = [heads_apart(q[0, whole], head_dim) for whole, *_ in chunks]
    o_t[...] = jnp.zeros_like(o_t)

    def visit(j, carry):
        keys = pl.ds(pl.multiple_of(j * step, step), step)
        found = []
        for per_head, (_, n, within) in zip(qs, chunks, strict=True):
            seen = allowed(bounds[0, n, :, within], j * step, step)
            found += [jnp.where(seen, matmul(k[0, keys], x, NT), MASKED) for x in per_head]
        weighed = []
        for s, (m, l) in zip(found, carry, strict=True):
            higher = jnp.maximum(m, s.max(axis=0, keepdims=True))
            p = jnp.exp2((s - higher) * c)
            shrink = jnp.exp2((m - higher) * c)
            l = l * shrink + p.sum(axis=0, keepdims=True)
            weighed.append((higher, l, shrink, p))
        v_t = head_rows(v[0, keys].T, head_dim)
        for n, (_, _, shrink, p) in enumerate(weighed):
            part = _part(n, heads, head_dim)
            o_t[part] = o_t[part] * shrink + weigh(v_t[n % heads], p)
        return [(m, l) for m, l, *_ in weighed]

    row = jnp.zeros((1, CHUNK), jnp.float32)
    carry = [(row + MASKED, row)] * (heads * len(chunks))
    carry = lax.fori_loop(start[n], start[n] + count[n], visit, carry)
    for n, (m, l) in enumerate(carry):
        g, (_, s, within) = n % heads, chunks[n // heads]
        some = seeing(bounds[0, s, :, within])
        l = jnp.where(some, l, 1.0)
        lse[0, 0, s, g : g + 1, within] = jnp.where(some, m * c + jnp.log2(l), UNSEEING)
        o_t[_part(n, heads, head_dim)] *= jnp.where(some, 1 / l, 0.0)
    o[0] = o_t[...].T.astype(o.dtype)


def _chunks(block: int, step: int) -> list[tuple[slice, int, slice]]:
    """The chunks of a block: where in the block, and where in which step of it."""
    starts = range(0, block, CHUNK)
    return [(slice(a, a + CHUNK), a // step, slice(a % step, a % step + CHUNK)) for a in starts]


def _part(n: int, heads: int, head_dim: int) -> tuple[slice, slice]:
    """Of a transposed tile [128, T], the piece of the n-th pair of chunk and head."""
    g, chunk = n % heads, n // heads
    return (
        slice(g * head_dim, (g + 1) * head_dim),
        slice(chunk * CHUNK, (chunk + 1) * CHUNK),
    )


def _global_backward(head_dim, block, buffers, interpret, residuals, do):
    q, k, v, bounds, visits, o, lse = residuals
    length, step = q.shape[1], bounds.shape[-1]
    at = _Specs(length, block, step, LANES // head_dim, buffers)
    summed = pltpu.VMEM((LANES, block), jnp.float32)
    dq, dk, dv = _call(
        functools.partial(_backward_kernel, head_dim=head_dim),
        q,
        block,
        buffers,
        name="backward",
        in_specs=[
            *(at.bounds_row, at.loaded_row, at.loaded_row, at.lse_row, at.lse_row),
            *(at.here, at.here),
        ],
        out_specs=[at.row, at.here, at.here],
        out_shape=[jax.ShapeDtypeStruct(q.shape, x.dtype) for x in (q, k, v)],
        scratch_shapes=[pltpu.VMEM((length // step, LANES, step), jnp.float32), summed, summed],
        interpret=interpret,
    )(*visits, bounds, q, do, lse, _delta(o, do, head_dim, step, interpret), k, v)
    return dq, dk, dv, None, None


global_attention.defvjp(_global_forward, _global_backward)


def _backward_kernel(
    start, count, bounds, q, do, lse, delta, k, v, dq, dk, dv, dq_t, dk_t, dv_t, *, head_dim
):
    j, c = pl.program_id(2), base_two(head_dim)
    n = pl.program_id(0) * pl.num_programs(2) + j
    block, step = k.shape[1], bounds.shape[-1]
    scale = head_dim**-0.5

    @pl.when(j == 0)
    def _first():
        dq_t[...] = jnp.zeros_like(dq_t)

    dk_t[...] = jnp.zeros_like(dk_t)
    dv_t[...] = jnp.zeros_like(dv_t)

    def visit(i, _):
        queries = pl.ds(pl.multiple_of(i * step, step), step)
        qs, dos = heads_apart(q[0, queries], head_dim), heads_apart(do[0, queries], head_dim)
        chunks = [slice(at, at + CHUNK) for at in range(0, step, CHUNK)]
        seen = [allowed(bounds[0, i, :, chunk], j * block, block) for chunk in chunks]
        products = []
        for q_h, do_h in zip(qs, dos, strict=True):
            for chunk, see in zip(chunks, seen, strict=True):
                s = jnp.where(see, matmul(k[0], q_h[chunk], NT), MASKED)
                products.append((s, matmul(v[0], do_h[chunk], NT)))
        weighed = []
        for n, (s, dp) in enumerate(products):
            g, chunk = n // len(chunks), chunks[n % len(chunks)]
            p = jnp.exp2(s * c - lse[0, 0, i, g : g + 1, chunk])
            ds = p * (dp - delta[0, 0, i, g : g + 1, chunk])
            weighed.append((p.astype(do.dtype), ds.astype(q.dtype)))
        q_t, do_t, k_t = (head_rows(x.T, head_dim) for x in (q[0, queries], do[0, queries], k[0]))
        for g in range(LANES // head_dim):
            lanes = slice(g * head_dim, (g + 1) * head_dim)
            per_chunk = weighed[g * len(chunks) : (g + 1) * len(chunks)]
            p, ds = (jnp.concatenate(x, axis=1) for x in zip(*per_chunk, strict=True))
            dv_t[lanes] += matmul(do_t[g], p, NT)
            dk_t[lanes] += matmul(q_t[g], ds, NT)
            dq_t[i, lanes] += matmul(k_t[g], ds)
        return 0

    lax.fori_loop(start[n], start[n] + count[n], visit, 0)
    dk[0] = (dk_t[...] * scale).T.astype(dk.dtype)
    dv[0] = dv_t[...].T.astype(dv.dtype)

    @pl.when(j == pl.num_programs(2) - 1)
    def _last():
        for i in range(dq_t.shape[0]):
            dq[0, i * step : (i + 1) * step] = (dq_t[i] * scale).T.astype(dq.dtype)


def _delta(o, do, head_dim: int, step: int, interpret) -> jax.Array:
    """Sums of o do over the lanes of each head, float32 [B, tiles, T / step, G, step].

    A kernel for its layout: plain XLA takes several times as long to turn lanes into rows.
    """
    rows, length, width = o.shape
    tiles, heads = width // LANES, LANES // head_dim
    here = pl.BlockSpec((1, step, width), lambda b, i: (b, i, 0))
    return pl.pallas_call(
        functools.partial(_delta_kernel, head_dim=head_dim),
        grid=(rows, length // step),
        in_specs=[here, here],
        out_specs=pl.BlockSpec((1, tiles, 1, heads, step), lambda b, i: (b, 0, i, 0, 0)),
        out_shape=jax.ShapeDtypeStruct((rows, tiles, length // step, heads, step), jnp.float32),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 2),
        name="global_attention_delta",
        interpret=interpret,
    )(o, do)


def _delta_kernel(o, do, delta, *, head_dim):
    for tile in range(o.shape[2] // LANES):
        lanes = slice(tile * LANES, (tile + 1) * LANES)
        products = o[0, :, lanes].astype(jnp.float32) * do[0, :, lanes].astype(jnp.float32)
        for g, x in enumerate(head_rows(products.T, head_dim)):
            delta[0, tile, 0, g : g + 1] = x.sum(axis=0, keepdims=True)

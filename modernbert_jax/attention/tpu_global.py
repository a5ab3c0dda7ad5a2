"""Attention over whole documents on TPU: flash attention that visits the blocks in range only.

A row's keys stay in VMEM while its blocks of queries come by, and a loop with bounds read at run
time goes over the key blocks that some query of the block sees. Nothing else costs a cycle:

             keys  0   1   2   3   4   5   6   7        row: | doc A  | doc B     | doc C | pad
    queries 0      x   x   .   .   .   .   .   .
            1      x   x   x   x   .   .   .   .        x  visited: start[1] = 0, count[1] = 4
            2      .   x   x   x   .   .   .   .        .  never touched
            3      .   x   x   x   x   .   .   .
            4 ...

    forward (grid: blocks of queries), for each key block in range:
        s = k q'    m' = max(m, max s)    p = 2^(c (s - m'))    a = 2^(c (m - m'))
        l = a l + sum p    o' = a o' + v' p    m = m'           then o' / l and lse = c m + log l
    backward (grid: blocks of keys), for each query block in range, which by symmetry of the
    ranges are the same numbers:
        p = 2^(c s - lse)    ds = p (v do' - delta)    delta = sum of o do over a head's lanes
        dv += p do    dk += c ds q    dq' += k' ds, kept for the whole row until its last block
"""

import functools

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
    base_two,
    below,
    beside,
    matmul,
    over_lanes,
    scores,
    stack_heads,
    times_heads,
)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6, 7, 8))
def global_attention(q, k, v, bounds, visits, head_dim: int, block: int, key_block: int, interpret):
    return _forward(q, k, v, bounds, visits, head_dim, block, key_block, interpret)[0]


def _forward(q, k, v, bounds, visits, head_dim, block, key_block, interpret):
    rows, length, width = q.shape
    heads, tiles, blocks = LANES // head_dim, width // LANES, length // block
    here = pl.BlockSpec((1, block, LANES), lambda b, t, i, *_: (b, i, t))
    whole = pl.BlockSpec((1, length, LANES), lambda b, t, i, *_: (b, 0, t))
    ranges = pl.BlockSpec((1, 1, 2, block), lambda b, t, i, *_: (b, i, 0, 0))
    statistics = pl.BlockSpec((1, 1, 1, heads, block), lambda b, t, i, *_: (b, t, i, 0, 0))
    return pl.pallas_call(
        functools.partial(_forward_kernel, head_dim=head_dim, key_block=key_block),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(rows, tiles, blocks),
            in_specs=[ranges, here, whole, whole],
            out_specs=[here, statistics],
            scratch_shapes=[pltpu.VMEM((LANES, block), jnp.float32)],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((rows, tiles, blocks, heads, block), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3, vmem_limit_bytes=32*2**20),
        name="global_attention_forward",
        interpret=interpret,
    )(*visits, bounds, q, k, v)


def _forward_kernel(start, count, bounds, q, k, v, o, lse, o_t, *, head_dim, key_block):
    b, i = pl.program_id(0), pl.program_id(2)
    block, heads, c = q.shape[1], LANES // head_dim, base_two(head_dim)
    qs = stack_heads(q[0], head_dim)
    o_t[...] = jnp.zeros_like(o_t)

    def visit(j, carry):
        m, l = carry
        keys = pl.ds(pl.multiple_of(j * key_block, key_block), key_block)
        s = scores(k[0, keys], qs, bounds[0, 0], j * key_block)
        higher = jnp.maximum(m, s.max(axis=0, keepdims=True))
        p = jnp.exp2((s - higher) * c)
        shrink = jnp.exp2((m - higher) * c)
        new = times_heads(v[0, keys], p.astype(v.dtype), head_dim)
        o_t[...] = o_t[...] * over_lanes(shrink, head_dim) + new
        return higher, l * shrink + p.sum(axis=0, keepdims=True)

    nothing = jnp.full((1, heads * block), MASKED), jnp.zeros((1, heads * block), jnp.float32)
    m, l = lax.fori_loop(start[b, i], start[b, i] + count[b, i], visit, nothing)
    seeing = jnp.tile(bounds[0, 0, 0:1] <= bounds[0, 0, 1:2], (1, heads))
    l = jnp.where(seeing, l, 1.0)
    o[0] = (o_t[...] * over_lanes(jnp.where(seeing, 1 / l, 0.0), head_dim)).T.astype(o.dtype)
    lse[0, 0, 0] = below(jnp.where(seeing, m * c + jnp.log2(l), UNSEEING), heads)


def _global_forward(q, k, v, bounds, visits, *options):
    o, lse = _forward(q, k, v, bounds, visits, *options)
    return o, (q, k, v, bounds, visits, o, lse)


def _global_backward(head_dim, block, key_block, interpret, residuals, do):
    q, k, v, bounds, visits, o, lse = residuals
    rows, length, width = q.shape
    heads, tiles, blocks = LANES // head_dim, width // LANES, length // block
    products = (o.astype(jnp.float32) * do.astype(jnp.float32)).reshape(rows, blocks, block, tiles, heads, head_dim)
    delta = products.sum(-1).transpose(0, 3, 1, 4, 2)
    here = pl.BlockSpec((1, block, LANES), lambda b, t, j, *_: (b, j, t))
    whole = pl.BlockSpec((1, length, LANES), lambda b, t, j, *_: (b, 0, t))
    ranges = pl.BlockSpec((1, blocks, 2, block), lambda b, t, j, *_: (b, 0, 0, 0))
    statistics = pl.BlockSpec((1, 1, blocks, heads, block), lambda b, t, j, *_: (b, t, 0, 0, 0))
    summed = pltpu.VMEM((block, LANES), jnp.float32)
    dq, dk, dv = pl.pallas_call(
        functools.partial(_backward_kernel, head_dim=head_dim),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(rows, tiles, blocks),
            in_specs=[ranges, whole, whole, statistics, statistics, here, here],
            out_specs=[whole, here, here],
            scratch_shapes=[pltpu.VMEM((blocks, LANES, block), jnp.float32), summed, summed],
        ),
        out_shape=[jax.ShapeDtypeStruct(q.shape, x.dtype) for x in (q, k, v)],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=48*2**20
        ),
        name="global_attention_backward",
        interpret=interpret,
    )(*visits, bounds, q, do, lse, delta, k, v)
    return dq, dk, dv, None, None


global_attention.defvjp(_global_forward, _global_backward)


def _backward_kernel(
    start, count, bounds, q, do, lse, delta, k, v, dq, dk, dv, dq_t, dk_sum, dv_sum, *, head_dim
):
    b, j = pl.program_id(0), pl.program_id(2)
    block, c = k.shape[1], base_two(head_dim)

    @pl.when(j == 0)
    def _first():
        dq_t[...] = jnp.zeros_like(dq_t)

    dk_sum[...] = jnp.zeros_like(dk_sum)
    dv_sum[...] = jnp.zeros_like(dv_sum)

    def visit(i, _):
        queries = pl.ds(pl.multiple_of(i * block, block), block)
        qs, dos = stack_heads(q[0, queries], head_dim), stack_heads(do[0, queries], head_dim)
        s = scores(k[0], qs, bounds[0, i], j * block)
        p = jnp.exp2(s * c - beside(lse[0, 0, i]))
        dp = matmul(v[0], dos, NT)
        ds = (p * (dp - beside(delta[0, 0, i]))).astype(q.dtype)
        dv_sum[...] += matmul(p.astype(do.dtype), dos)
        dk_sum[...] += matmul(ds, qs)
        dq_t[i] += times_heads(k[0], ds, head_dim)
        return 0

    lax.fori_loop(start[b, j], start[b, j] + count[b, j], visit, 0)
    dk[0] = (dk_sum[...] * head_dim**-0.5).astype(dk.dtype)
    dv[0] = dv_sum[...].astype(dv.dtype)

    @pl.when(j == pl.num_programs(2) - 1)
    def _last():
        for i in range(dq_t.shape[0]):
            dq[0, i * block : (i + 1) * block] = (dq_t[i] * head_dim**-0.5).T.astype(dq.dtype)

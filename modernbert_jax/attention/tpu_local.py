"""Sliding-window attention on TPU: every query's keys at once, no loop over key blocks.

A block of queries is cut into tiles of 128, and a tile sees the keys of its own 128 tokens and of
a halo, at least half the window, on both sides. Softmax needs no second look:

    keys     |halo|          block of C          |halo|
    tile 0   [=====128 + 2 halos=====]
    tile 1               [=======================]        which of them a query sees
    queries       | tile 0 | tile 1 | ...   |             is its range, as everywhere

    forward, for each tile:  s = k q'   m = max s   p = 2^(c s - m)   l = sum p   o' = v' p / l
    backward:                p = 2^(c s - lse)   dp = v do'   delta = sum p dp
                             ds = p (dp - delta)   dv += p do   dk += c ds q   dq' = k' ds
All of a query's keys are there in the backward pass too, so delta comes from what is at hand; of
the forward pass only lse is kept. Blocks go from left to right: gradients of the last keys wait
for the next block's queries, so keys are written one step after their block:

    step i    queries of block i  ->  dq of block i
              keys  [done: block i - 1 ...|halo|halo| ... block i ... |halo|halo]
              out    dk, dv of block i - 1     |    carried over to step i + 1
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from modernbert_jax.attention.tpu_tiles import (
    LANES,
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

TILE = 128
"""Queries whose scores are computed together."""


def halo_of(window: int) -> int:
    """Keys to load on each side of a block: a power of two, from 16 that fill a register."""
    return max(16, 1 << (window // 2 - 1).bit_length())


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def local_attention(q, k, v, bounds, head_dim: int, halo: int, block: int, interpret):
    """Attention over ranges that reach at most `halo` keys to each side.

    Args:
        q, k, v: [B, T, N * H], T a multiple of `block`, N * H one of 128.
        bounds: int32 [B, 2, T], the first and last key of each query.
        head_dim: 32, 64 or 128.
        halo: a divisor of `block`, see `halo_of`.
        block: queries per grid step, a multiple of 128.
        interpret: as of `pallas_call`.

    Returns:
        [B, T, N * H]; zeros for queries without keys.
    """
    return _forward(q, k, v, bounds, head_dim, halo, block, interpret)[0]


def _forward(q, k, v, bounds, head_dim, halo, block, interpret):
    rows, length, width = q.shape
    heads, tiles = LANES // head_dim, width // LANES
    at = _Specs(block, halo, length)
    statistics = pl.BlockSpec((1, 1, heads, block), lambda b, t, i: (b, t, 0, i))
    keys = pltpu.VMEM((block + 2 * halo, LANES), k.dtype)
    return pl.pallas_call(
        functools.partial(_forward_kernel, head_dim=head_dim, halo=halo),
        grid=(rows, tiles, length // block),
        in_specs=[at.bounds, at.here, *at.with_halo, *at.with_halo],
        out_specs=[at.here, statistics],
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((rows, tiles, heads, length), jnp.float32),
        ],
        scratch_shapes=[keys, keys],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel",) * 3),
        name="local_attention_forward",
        interpret=interpret,
    )(bounds, q, k, k, k, v, v, v)


class _Specs:
    """Blocks of arrays [B, T, N * H] for a grid of (row, tile of heads, block)."""

    def __init__(self, block: int, halo: int, length: int):
        per_block, last, halos = block // halo, length // block - 1, length // halo
        # A halo beyond the row's end is some other keys: out of every range.
        left = pl.BlockSpec(
            (1, halo, LANES), lambda b, t, i: (b, jnp.maximum(i * per_block - 1, 0), t)
        )
        right = pl.BlockSpec(
            (1, halo, LANES), lambda b, t, i: (b, jnp.minimum((i + 1) * per_block, halos - 1), t)
        )
        # The backward pass takes one step more than there are blocks.
        self.here = pl.BlockSpec((1, block, LANES), lambda b, t, i: (b, jnp.minimum(i, last), t))
        self.before = pl.BlockSpec((1, block, LANES), lambda b, t, i: (b, jnp.maximum(i - 1, 0), t))
        self.bounds = pl.BlockSpec((1, 2, block), lambda b, t, i: (b, 0, jnp.minimum(i, last)))
        self.with_halo = (left, self.here, right)


def _join(left, here, right, whole):
    """Copies a block and its halos next to each other."""
    halo, block = left.shape[1], here.shape[1]
    whole[:halo] = left[0]
    whole[halo : halo + block] = here[0]
    whole[halo + block :] = right[0]


def _tiles(block, halo):
    """The queries of each tile in a block, and their keys in the block with its halos."""
    starts = range(0, block, TILE)
    return [(slice(at, at + TILE), slice(at, at + TILE + 2 * halo)) for at in starts]


def _forward_kernel(
    bounds, q, k_left, k_here, k_right, v_left, v_here, v_right, o, lse, k, v, *, head_dim, halo
):
    _join(k_left, k_here, k_right, k)
    _join(v_left, v_here, v_right, v)
    block, heads, c = q.shape[1], LANES // head_dim, base_two(head_dim)
    start = pl.program_id(2) * block - halo
    # Stage by stage, because tiles are independent: one's arithmetic hides another's latency.
    found = []
    for tile, span in _tiles(block, halo):
        qs = stack_heads(q[0, tile], head_dim)
        found.append(scores(k[span], qs, bounds[0, :, tile], start + span.start))
    weighed = []
    for s in found:
        m = s.max(axis=0, keepdims=True)
        p = jnp.exp2((s - m) * c)
        weighed.append((m, p.astype(v.dtype), p.sum(axis=0, keepdims=True)))
    for (tile, span), (m, p, l) in zip(_tiles(block, halo), weighed, strict=True):
        seeing = jnp.tile(bounds[0, 0:1, tile] <= bounds[0, 1:2, tile], (1, heads))
        o_t = times_heads(v[span], p, head_dim)
        o_t *= over_lanes(jnp.where(seeing, 1 / l, 0.0), head_dim)
        o[0, tile] = o_t.T.astype(o.dtype)
        lse[0, 0, :, tile] = below(jnp.where(seeing, m * c + jnp.log2(l), UNSEEING), heads)


def _local_forward(q, k, v, bounds, *options):
    o, lse = _forward(q, k, v, bounds, *options)
    return o, (q, k, v, bounds, lse)


def _local_backward(head_dim, halo, block, interpret, residuals, do):
    q, k, v, bounds, lse = residuals
    rows, length, width = q.shape
    heads, tiles = LANES // head_dim, width // LANES
    at, last = _Specs(block, halo, length), length // block - 1
    statistics = pl.BlockSpec((1, 1, heads, block), lambda b, t, i: (b, t, 0, jnp.minimum(i, last)))
    span = block + 2 * halo
    inputs, sums = pltpu.VMEM((span, LANES), k.dtype), pltpu.VMEM((span, LANES), jnp.float32)
    done = pltpu.VMEM((block - halo, LANES), k.dtype)
    dq, dk, dv = pl.pallas_call(
        functools.partial(_backward_kernel, head_dim=head_dim, halo=halo),
        grid=(rows, tiles, length // block + 1),
        in_specs=[at.bounds, at.here, at.here, statistics, *at.with_halo, *at.with_halo],
        out_specs=[at.here, at.before, at.before],
        out_shape=[jax.ShapeDtypeStruct(q.shape, x.dtype) for x in (q, k, v)],
        scratch_shapes=[inputs, inputs, sums, sums, done, done],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary")
        ),
        name="local_attention_backward",
        interpret=interpret,
    )(bounds, q, do, lse, k, k, k, v, v, v)
    return dq, dk, dv, None


local_attention.defvjp(_local_forward, _local_backward)


def _backward_kernel(
    bounds, q, do, lse, k_left, k_here, k_right, v_left, v_here, v_right,
    dq, dk, dv, k, v, dk_sum, dv_sum, dk_done, dv_done, *, head_dim, halo,
):  # fmt: skip
    i, block, c = pl.program_id(2), q.shape[1], base_two(head_dim)
    sums = (dk_sum, dk_done, dk), (dv_sum, dv_done, dv)
    for total, _, _ in sums:
        total[: 2 * halo] = jnp.where(i == 0, 0.0, total[block:])

    @pl.when(i < pl.num_programs(2) - 1)
    def _queries():
        _join(k_left, k_here, k_right, k)
        _join(v_left, v_here, v_right, v)
        start = i * block - halo
        products = []
        for tile, span in _tiles(block, halo):
            s = scores(
                k[span], stack_heads(q[0, tile], head_dim), bounds[0, :, tile], start + span.start
            )
            products.append((s, matmul(v[span], stack_heads(do[0, tile], head_dim), NT)))
        weighed = []
        for (tile, _), (s, dp) in zip(_tiles(block, halo), products, strict=True):
            p = jnp.exp2(s * c - beside(lse[0, 0, :, tile]))
            delta = (p * dp).sum(axis=0, keepdims=True)
            weighed.append((p.astype(do.dtype), (p * (dp - delta)).astype(q.dtype)))
        for (tile, span), (p, ds) in zip(_tiles(block, halo), weighed, strict=True):
            _add(dv_sum, span, matmul(p, stack_heads(do[0, tile], head_dim)))
            _add(dk_sum, span, matmul(ds, stack_heads(q[0, tile], head_dim)))
            dq_t = times_heads(k[span], ds, head_dim) * head_dim**-0.5
            dq[0, tile] = dq_t.T.astype(dq.dtype)

    # What is left of the block before is written, and what is complete of this one waits.
    for total, done, out in sums:
        scale = head_dim**-0.5 if out is dk else 1.0
        out[0, : block - halo] = done[...]
        out[0, block - halo :] = (total[:halo] * scale).astype(out.dtype)
        done[...] = (total[halo:block] * scale).astype(done.dtype)


def _add(total, span, x):
    """Adds to the keys of a tile, of which the tile before has seen all but the last."""
    new = span.stop - TILE
    total[span.start : new] += x[:-TILE]
    total[new : span.stop] = x[-TILE:]

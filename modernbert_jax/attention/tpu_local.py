"""Sliding-window attention on TPU: all keys of a query at once, without a loop over key blocks.

A block of queries is divided into tiles of 128. A tile sees the keys of its own 128 tokens and of a
halo on both sides, at least half the window wide. Softmax needs a single pass:

    keys     |halo|          block of C          |halo|
    tile 0   [=====128 + 2 halos=====]
    tile 1               [=======================]        which of them a query sees
    queries       | tile 0 | tile 1 | ...   |             is its range, as everywhere

    forward, for each tile:  s = k q'   m = max s   p = 2^(c s - m)   l = sum p   o' = v' p / l
    backward:                p = 2^(c s - lse)   dp = v do'   delta = sum p dp
                             ds = p (dp - delta)   dv += p do   dk += c ds q   dq' = k' ds

The backward pass also has all keys of a query, so that it computes delta itself and needs only lse
of the forward pass. Blocks go from left to right. Gradients of a block's last keys depend on the
next block's queries, so that keys are written one step after their block:

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

TILE = 128
"""Number of queries whose scores are computed together."""


WIDEST = 256
"""Widest window of the kernel, whose halo is one tile; of wider ones most work would be halo."""


def halo_of(window: int) -> int:
    """Keys on each side of a block for a window up to `WIDEST`: half a tile or a tile."""
    return TILE // 2 if window // 2 <= TILE // 2 else TILE


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6, 7))
def local_attention(q, k, v, bounds, head_dim: int, halo: int, block: int, interpret):
    """Attention over ranges that reach at most `halo` keys to each side.

    Args:
        q, k, v: [B, T, N * H], T a multiple of `block`, N * H one of 128.
        bounds: int32 [B, 2, T], the first and last key of each query.
        head_dim: 32, 64 or 128.
        halo: see `halo_of`.
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
        # A halo beyond the row's end loads other keys, which are outside of every range.
        left = pl.BlockSpec(
            (1, halo, LANES), lambda b, t, i: (b, jnp.maximum(i * per_block - 1, 0), t)
        )
        right = pl.BlockSpec(
            (1, halo, LANES), lambda b, t, i: (b, jnp.minimum((i + 1) * per_block, halos - 1), t)
        )
        # The backward pass takes one step more than the number of blocks.
        self.here = pl.BlockSpec((1, block, LANES), lambda b, t, i: (b, jnp.minimum(i, last), t))
        self.before = pl.BlockSpec((1, block, LANES), lambda b, t, i: (b, jnp.maximum(i - 1, 0), t))
        self.bounds = pl.BlockSpec((1, 2, block), lambda b, t, i: (b, 0, jnp.minimum(i, last)))
        self.with_halo = (left, self.here, right)


def _join(left, here, right, whole):
    """Copy a block and its halos next to each other."""
    halo, block = left.shape[1], here.shape[1]
    whole[:halo] = left[0]
    whole[halo : halo + block] = here[0]
    whole[halo + block :] = right[0]


def _tiles(block, halo):
    """Queries of each tile in a block, and their keys in the block with its halos."""
    starts = range(0, block, TILE)
    return [(slice(at, at + TILE), slice(at, at + TILE + 2 * halo)) for at in starts]


def _forward_kernel(
    bounds, q, k_left, k_here, k_right, v_left, v_here, v_right, o, lse, k, v, *, head_dim, halo
):
    _join(k_left, k_here, k_right, k)
    _join(v_left, v_here, v_right, v)
    block, c = q.shape[1], base_two(head_dim)
    start = pl.program_id(2) * block - halo
    tiles = _tiles(block, halo)
    # Stage by stage: tiles and heads are independent, and hide each other's latency.
    scores = []
    for tile, span in tiles:
        seen = allowed(bounds[0, :, tile], start + span.start, TILE + 2 * halo)
        qs = heads_apart(q[0, tile], head_dim)
        scores.append([jnp.where(seen, matmul(k[span], x, NT), MASKED) for x in qs])
    weighed = []
    for per_head in scores:
        weighed.append([])
        for s in per_head:
            m = s.max(axis=0, keepdims=True)
            p = jnp.exp2((s - m) * c)
            weighed[-1].append((m, p.sum(axis=0, keepdims=True), p))
    for (tile, span), per_head in zip(tiles, weighed, strict=True):
        some = seeing(bounds[0, :, tile])
        o_t = []
        for v_t, (m, l, p) in zip(head_rows(v[span].T, head_dim), per_head, strict=True):
            lse[0, 0, len(o_t) : len(o_t) + 1, tile] = jnp.where(
                some, m * c + jnp.log2(l), UNSEEING
            )
            o_t.append(weigh(v_t, p) * jnp.where(some, 1 / l, 0.0))
        o[0, tile] = jnp.concatenate(o_t).T.astype(o.dtype)


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
    inputs, sums = pltpu.VMEM((span, LANES), k.dtype), pltpu.VMEM((LANES, span), jnp.float32)
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
    sums = (dk_sum, dk_done, dk, head_dim**-0.5), (dv_sum, dv_done, dv, 1.0)
    for total, *_ in sums:
        total[:, : 2 * halo] = jnp.where(i == 0, 0.0, total[:, block:])

    @pl.when(i < pl.num_programs(2) - 1)
    def _queries():
        _join(k_left, k_here, k_right, k)
        _join(v_left, v_here, v_right, v)
        start = i * block - halo
        tiles = _tiles(block, halo)
        products = []
        for tile, span in tiles:
            seen = allowed(bounds[0, :, tile], start + span.start, TILE + 2 * halo)
            qs, dos = heads_apart(q[0, tile], head_dim), heads_apart(do[0, tile], head_dim)
            s = [jnp.where(seen, matmul(k[span], x, NT), MASKED) for x in qs]
            products.append(list(zip(s, [matmul(v[span], x, NT) for x in dos], strict=True)))
        weighed = []
        for (tile, _), per_head in zip(tiles, products, strict=True):
            weighed.append([])
            for g, (s, dp) in enumerate(per_head):
                p = jnp.exp2(s * c - lse[0, 0, g : g + 1, tile])
                delta = (p * dp).sum(axis=0, keepdims=True)
                ds = (p * (dp - delta)).astype(q.dtype)
                weighed[-1].append((p.astype(do.dtype), ds))
        for (tile, span), per_head in zip(tiles, weighed, strict=True):
            transposed = (head_rows(x.T, head_dim) for x in (q[0, tile], do[0, tile], k[span]))
            dq_t, dk_t, dv_t = [], [], []
            for q_t, do_t, k_t, (p, ds) in zip(*transposed, per_head, strict=True):
                dv_t.append(matmul(do_t, p, NT))
                dk_t.append(matmul(q_t, ds, NT))
                dq_t.append(matmul(k_t, ds))
            _add(dv_sum, span, jnp.concatenate(dv_t))
            _add(dk_sum, span, jnp.concatenate(dk_t))
            dq[0, tile] = (jnp.concatenate(dq_t) * head_dim**-0.5).T.astype(dq.dtype)

    # Write the rest of the previous block, and carry over this one.
    for total, done, out, scale in sums:
        out[0, : block - halo] = done[...]
        complete = (total[...] * scale).T.astype(out.dtype)
        out[0, block - halo :] = complete[:halo]
        done[...] = complete[halo:block]


def _add(total, span, x):
    """Add to the keys of a tile; all but the last were initialised by the previous tile."""
    new = span.stop - TILE
    total[:, span.start : new] += x[:, :-TILE]
    total[:, new : span.stop] = x[:, -TILE:]

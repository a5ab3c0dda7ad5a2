"""Attention over whole documents on TPU: flash attention over the blocks in range only.

A row's keys stay in VMEM during all of its blocks of queries. For each block a loop, with bounds
read at run time, covers the key steps that some query of the block sees, and no others:

    keys in steps   0   1   2   3   4   5   6   7       row: | doc A  | doc B     | doc C | pad
    queries 0       x   x   x   .   .   .   .   .       blocks are two steps wide
            1       x   x   x   x   x   .   .   .       x  visited: start[1] = 0, number[1] = 5
            2       .   .   x   x   x   x   x   .       .  never touched
            3       .   .   .   .   .   x   x   .

    forward, a block of queries by steps of keys:
        s = k q'    m' = max(m, max s)    p = 2^(c (s - m'))    a = 2^(c (m - m'))
        l = a l + sum p    o' = a o' + v' p    m = m'        at last o' / l and lse = c m + log2 l
    backward, a block of keys by steps of the queries that see some of them:
        p = 2^(c s - lse)    ds = p (v do' - delta)    delta = sum of o do over a head's lanes
        dv' += do' p'    dk' += c q' ds'    dq' += k' ds, kept for a whole row

Queries and keys may be different tokens: a device with a piece of a row has the keys of all of it.
The backward pass is in `tpu_global_backward`.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from modernbert_jax.attention.tpu_global_backward import backward
from modernbert_jax.attention.tpu_resident import CHUNK, Sizes, Specs, Visits, call, vmem_bytes
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(6, 7, 8))
def global_attention(
    q, k, v, bounds, by_queries: Visits, by_keys: Visits, head_dim: int, sizes: Sizes, interpret
):
    """Attention over any ranges.

    Args:
        q: [B, T, N * H], T a multiple of `sizes.queries`, N * H one of 128.
        k, v: [B, S, N * H], S a multiple of `sizes.keys`.
        bounds: int32 [B, T / step, 2, step], the first and last key of each query.
        by_queries: for blocks of queries, the steps of keys in range.
        by_keys: for blocks of keys, the steps of queries that see them.
        head_dim: 32, 64 or 128.
        sizes: of blocks.
        interpret: as of `pallas_call`.

    Returns:
        [B, T, N * H]; zeros for queries without keys.
    """
    return _forward(q, k, v, bounds, by_queries, by_keys, head_dim, sizes, interpret)[0]


def _forward(q, k, v, bounds, by_queries, by_keys, head_dim, sizes, interpret):
    rows, length, width = q.shape
    step, tiles, heads = bounds.shape[-1], width // LANES, LANES // head_dim
    at = Specs(k.shape[1], sizes.queries, step, heads, sizes.buffers)
    o, lse = call(
        functools.partial(_forward_kernel, head_dim=head_dim),
        (rows, tiles, length // sizes.queries),
        vmem_bytes(length, k.shape[1], q.dtype, sizes.buffers),
        name="forward",
        specs={
            "in_specs": [at.bounds_here, at.here, at.loaded_row, at.loaded_row],
            "out_specs": [at.here, at.lse_here],
            "scratch_shapes": [pltpu.VMEM((LANES, sizes.queries), jnp.float32)],
        },
        out_shape=[
            jax.ShapeDtypeStruct(q.shape, q.dtype),
            jax.ShapeDtypeStruct((rows, tiles, length // step, heads, step), jnp.float32),
        ],
        interpret=interpret,
    )(*by_queries, bounds, q, k, v)
    return o, (q, k, v, bounds, by_keys, o, lse)


def _backward(head_dim, sizes, interpret, residuals, do):
    return *backward(*residuals, do, head_dim, sizes, interpret), None, None, None


global_attention.defvjp(_forward, _backward)


def _forward_kernel(start, count, bounds, q, k, v, o, lse, o_t, *, head_dim):
    i, c = pl.program_id(2), base_two(head_dim)
    n = pl.program_id(0) * pl.num_programs(2) + i
    block, step, heads = q.shape[1], bounds.shape[-1], LANES // head_dim
    chunks = _chunks(block, step)
    qs = [heads_apart(q[0, whole], head_dim) for whole, *_ in chunks]
    o_t[...] = jnp.zeros_like(o_t)

    def visit(j, carry):
        keys = pl.ds(pl.multiple_of(j * step, step), step)
        scores = []
        for per_head, (_, n, within) in zip(qs, chunks, strict=True):
            seen = allowed(bounds[0, n, :, within], j * step, step)
            scores += [jnp.where(seen, matmul(k[0, keys], x, NT), MASKED) for x in per_head]
        weighed = []
        for s, (m, l) in zip(scores, carry, strict=True):
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
    """Chunks of a block: their place in the block, their step, and their place in it."""
    starts = range(0, block, CHUNK)
    return [(slice(a, a + CHUNK), a // step, slice(a % step, a % step + CHUNK)) for a in starts]


def _part(n: int, heads: int, head_dim: int) -> tuple[slice, slice]:
    """Piece of a transposed tile [128, T] for the n-th pair of chunk and head."""
    g, chunk = n % heads, n // heads
    return (
        slice(g * head_dim, (g + 1) * head_dim),
        slice(chunk * CHUNK, (chunk + 1) * CHUNK),
    )

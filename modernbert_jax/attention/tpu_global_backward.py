"""The backward pass of `tpu_global`: one kernel for dq, dk and dv, and a small one for delta.

Blocks of keys visit the steps of queries that see some of them. dk and dv are then complete; dq is
accumulated over all blocks in a float32 sum of the whole row, written at the end:

    queries in steps    0   1   2   3   4   5   6   7
    keys 0              x   x   x   .   .   .   .   .    dk, dv of block 0
         1              x   x   x   x   x   .   .   .    dk, dv of block 1
                        |   |   |   |   |
    dq of a step        +   +   +   +   +                sums over the blocks that visit it
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from modernbert_jax.attention.tpu_resident import CHUNK, Sizes, Specs, Visits, call, vmem_bytes
from modernbert_jax.attention.tpu_tiles import (
    LANES,
    MASKED,
    NT,
    allowed,
    base_two,
    head_rows,
    heads_apart,
    matmul,
)


def backward(
    q, k, v, bounds, by_keys: Visits, o, lse, do, head_dim: int, sizes: Sizes, interpret
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Gradients of q [B, T, N * H] and of k and v [B, S, N * H]; see `global_attention`.

    Args:
        lse: float32 [B, tiles, T / step, G, step], for the G heads in a tile.
    """
    rows, length, width = q.shape
    step, tiles = bounds.shape[-1], width // LANES
    at = Specs(length, sizes.keys, step, LANES // head_dim, sizes.buffers)
    of_block = pltpu.VMEM((LANES, sizes.keys), jnp.float32)
    return call(
        functools.partial(_backward_kernel, head_dim=head_dim),
        (rows, tiles, k.shape[1] // sizes.keys),
        vmem_bytes(length, k.shape[1], q.dtype, sizes.buffers),
        name="backward",
        specs={
            "in_specs": [
                *(at.bounds_row, at.loaded_row, at.loaded_row, at.lse_row, at.lse_row),
                *(at.here, at.here),
            ],
            "out_specs": [at.row, at.here, at.here],
            "scratch_shapes": [
                pltpu.VMEM((length // step, LANES, step), jnp.float32),
                of_block,
                of_block,
            ],
        },
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)],
        interpret=interpret,
    )(*by_keys, bounds, q, do, lse, _delta(o, do, head_dim, step, interpret), k, v)


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

    Plain XLA takes several times as long for the transposition of lanes to rows.
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

"""FlashAttention-2 over key ranges on GPU: the three kernels.

A program computes one tile of queries of one head, in a loop over the tiles of keys that any of
them sees (Dao 2023, algorithm 1). The bounds of the loop come from the ranges, once for all layers.
In full layers, tiles that every query sees whole are computed without a mask:

                   tile of keys   0    1    2    3    4    5
            a tile of queries  |    | // | ## | ## | // |    |
                                     ^    ^         ^    ^
                                  start  full_start  |   stop
                                                full_stop
    fwd  s = q k'; m, l and o follow the running maximum; lse = m + log2 l
    dkv  a program computes a tile of keys, in a loop over the queries that see them:
         p = 2^(s - lse); dv += p' do; ds = p (do v' - delta); dk += ds' q
    dq   a program computes a tile of queries: dq += ds k

Scores are in units of log2 e, so that 2^x replaces e^x. All sums are float32; p and ds are rounded
to the type of the inputs only as operands of a product.
"""

import functools
import math

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from modernbert_jax.platform import interpreted

_MASKED = -1e30
"""Score of masked keys; finite, so that a tile without keys gives no NaN."""


def attention_fwd(*refs, tile, split):
    """Compute o and lse of a tile of queries."""
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
    """Compute dk and dv of a tile of keys."""
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
    """Compute dq of a tile of queries."""
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
    """Loop of `step(tile, carry, masked)` over tiles; with `split`, masked at both ends only."""
    start, full_start, full_stop, stop = (bounds_ref[n] for n in range(4))
    legs = [(start, full_start, True), (full_start, full_stop, False), (full_stop, stop, True)]
    for low, high, masked in legs if split else [(start, stop, True)]:
        carry = lax.fori_loop(low, high, functools.partial(step, masked=masked), carry)
    return carry


def _within(i, size, first, last):
    """Whether each token's range includes each token of tile `i`: boolean [tokens, size]."""
    there = i * size + jnp.arange(size)
    return (there[None] >= first[:, None]) & (there[None] <= last[:, None])


def _log2_scale(x):
    return x.shape[1] ** -0.5 * math.log2(math.e)


def _dot(a, b):
    """Product; of float32 in three parts, as tensor cores round factors to ten bits."""
    precision = None
    if a.dtype == jnp.float32 and not interpreted():
        precision = lax.DotAlgorithmPreset.TF32_TF32_F32_X3
    return plgpu.dot(a, b, precision=precision)

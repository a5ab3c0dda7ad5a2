"""Flash attention in plain XLA that visits only the key blocks inside the ranges.

Rows are cut into blocks of `BLOCK` tokens. For a block of queries the loop over key blocks runs
from the first to the last one that any of them sees, bounds read from the data at run time: work
follows the documents and the window, and memory the length. The backward pass is a loop over key
blocks whose inner loop, by symmetry of the ranges, runs over the same bounds read as queries.

First-order reverse differentiation only. Rows are computed one after another.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.attention.ranges import KeyRanges

BLOCK = 128
"""Tokens in a block: the fastest of 128, 256 and 512 on CPU for packed rows."""

_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)
"""Finite, so that a block in which a query sees nothing gives no NaN."""


def xla_range(q: jax.Array, k: jax.Array, v: jax.Array, ranges: KeyRanges) -> jax.Array:
    """Attention [B, T, N, H] over the ranges, in memory proportional to T."""
    length = q.shape[1]
    block = min(BLOCK, length)
    pad = -length % block

    def heads_first(x):
        return jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))).swapaxes(1, 2)

    first = jnp.pad(ranges.first, ((0, 0), (0, pad)), constant_values=1)
    last = jnp.pad(ranges.last, ((0, 0), (0, pad)), constant_values=0)
    out = _rows(heads_first(q), heads_first(k), heads_first(v), KeyRanges(first, last), block)
    return out.swapaxes(1, 2)[:, :length]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _rows(q, k, v, ranges, block):
    """[B, N, T, H] with T a multiple of the block."""
    return _rows_forward(q, k, v, ranges, block)[0]


def _rows_forward(q, k, v, ranges, block):
    out, logsumexp = lax.map(lambda row: _forward(*row, block), (q, k, v, ranges))
    return out, (q, k, v, ranges, out, logsumexp)


def _rows_backward(block, residuals, d_out):
    dq, dk, dv = lax.map(lambda row: _backward(*row, block), (*residuals, d_out))
    return dq, dk, dv, None


_rows.defvjp(_rows_forward, _rows_backward)


def _forward(q, k, v, ranges, block):
    """One row: output [N, T, H] and the log of each query's sum of exponentials [N, T]."""
    heads, length, _ = q.shape

    def query_block(i):
        qi, seen = _block(q, i, block), _block_ranges(ranges, i, block)

        def key_block(j, carry):
            acc, top, total = carry
            scores = _scores(qi, _block(k, j, block))
            allowed = seen.allows(j * block + jnp.arange(block))
            scores = jnp.where(allowed, scores, _MASKED)
            new_top = jnp.maximum(top, scores.max(-1))
            weights = jnp.exp(scores - new_top[..., None])
            shrink = jnp.exp(top - new_top)
            acc = acc * shrink[..., None] + _matmul(
                "NTS,NSH->NTH", weights.astype(v.dtype), _block(v, j, block)
            )
            return acc, new_top, total * shrink + weights.sum(-1)

        acc, top, total = lax.fori_loop(
            *_bounds(seen, block),
            key_block,
            (
                jnp.zeros(qi.shape, jnp.float32),
                jnp.full(qi.shape[:-1], _MASKED),
                jnp.zeros(qi.shape[:-1], jnp.float32),
            ),
        )
        total = jnp.where(seen.empty, 1.0, total)
        out = jnp.where(seen.empty[:, None], 0.0, acc / total[..., None])
        return out.astype(q.dtype), top + jnp.log(total)

    out, logsumexp = lax.map(query_block, jnp.arange(length // block))
    return _join(out), logsumexp.swapaxes(0, 1).reshape(heads, length)


def _backward(q, k, v, ranges, out, logsumexp, d_out, block):
    """One row: the cotangents of q, k and v, [N, T, H] each."""
    length, scale = q.shape[1], q.shape[-1] ** -0.5
    row_dot = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), -1)

    def key_block(dq, j):
        kj, vj = _block(k, j, block), _block(v, j, block)
        seen_by = _block_ranges(ranges, j, block)

        def query_block(i, carry):
            dq, dk, dv = carry
            qi, d_out_i = _block(q, i, block), _block(d_out, i, block)
            allowed = seen_by.allows(i * block + jnp.arange(block)).swapaxes(0, 1)
            scores = _scores(qi, kj) - _block(logsumexp, i, block)[..., None]
            weights = jnp.where(allowed, jnp.exp(scores), 0.0)
            d_weights = _matmul("NTH,NSH->NTS", d_out_i, vj) - _block(row_dot, i, block)[..., None]
            d_scores = (weights * d_weights * scale).astype(q.dtype)
            dv += _matmul("NTS,NTH->NSH", weights.astype(d_out.dtype), d_out_i)
            dk += _matmul("NTS,NTH->NSH", d_scores, qi)
            dqi = _block(dq, i, block) + _matmul("NTS,NSH->NTH", d_scores, kj)
            return lax.dynamic_update_slice_in_dim(dq, dqi, i * block, axis=1), dk, dv

        zeros = jnp.zeros(kj.shape, jnp.float32)
        dq, dk, dv = lax.fori_loop(*_bounds(seen_by, block), query_block, (dq, zeros, zeros))
        return dq, (dk.astype(k.dtype), dv.astype(v.dtype))

    dq, (dk, dv) = lax.scan(key_block, jnp.zeros(q.shape, jnp.float32), jnp.arange(length // block))
    return dq.astype(q.dtype), _join(dk), _join(dv)


def _block(x, i, block):
    return lax.dynamic_slice_in_dim(x, i * block, block, axis=1)


def _block_ranges(ranges, i, block):
    return KeyRanges(*(lax.dynamic_slice_in_dim(x, i * block, block) for x in ranges))


def _bounds(ranges, block):
    """First key block to visit and the one after the last; equal where there is nothing to see."""
    first = jnp.where(ranges.empty, jnp.iinfo(jnp.int32).max, ranges.first).min() // block
    last = jnp.where(ranges.empty, -1, ranges.last).max() // block + 1
    return jnp.minimum(first, last), last


def _scores(q, k):
    return _matmul("NTH,NSH->NTS", q, k) * q.shape[-1] ** -0.5


def _matmul(spec, a, b):
    return jnp.einsum(spec, a, b, preferred_element_type=jnp.float32)


def _join(blocks):
    """[blocks, N, C, H] to [N, T, H]."""
    return blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1, blocks.shape[-1])

"""Flash attention in plain XLA that visits only the key blocks inside the ranges.

Rows are cut into blocks of `BLOCK` tokens. For a block of queries the loop over key blocks runs
from the first to the last one that any of them sees, bounds read from the data at run time: work
follows the documents and the window, and memory the length. The backward pass is a loop over key
blocks whose inner loop, by symmetry of the ranges, runs over the same bounds read as queries.

First-order reverse differentiation only. Rows are computed one after another.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.platform import precision
from modernbert_jax.attention.ranges import KeyRanges

BLOCK = 128
"""Tokens in a block: the fastest of 128, 256 and 512 on CPU for packed rows."""

_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)
"""Finite, so that a block in which a query sees nothing gives no NaN."""


def refuses(call: Call) -> None:
    """Nothing: this is what every other implementation falls back on."""


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, ranges: KeyRanges, *, window: int | None
) -> jax.Array:
    """Attention [B, T, N, H] over the ranges, in memory proportional to T."""
    length = q.shape[1]
    pad = -length % BLOCK

    def heads_first(x):
        return jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))).swapaxes(1, 2)

    visits = _visits(ranges, pad), _visits(ranges.transposed, pad)
    out = _rows(heads_first(q), heads_first(k), heads_first(v), *visits)
    return out.swapaxes(1, 2)[:, :length]


class _Visits(NamedTuple):
    """Ranges of every token [B, T], and the blocks [B, T / BLOCK] that each block visits."""

    first: jax.Array
    last: jax.Array
    start: jax.Array
    count: jax.Array


def _visits(ranges: KeyRanges, pad: int) -> _Visits:
    first = jnp.pad(ranges.first, ((0, 0), (0, pad)), constant_values=1)
    last = jnp.pad(ranges.last, ((0, 0), (0, pad)), constant_values=0)
    blocks = ranges.blocks(BLOCK)
    return _Visits(first, last, blocks.start, blocks.count)


@jax.custom_vjp
def _rows(q, k, v, seen, seen_by):
    """[B, N, T, H] with T a multiple of the block."""
    return _rows_forward(q, k, v, seen, seen_by)[0]


def _rows_forward(q, k, v, seen, seen_by):
    out, logsumexp = lax.map(lambda row: _forward(*row), (q, k, v, seen))
    return out, (q, k, v, seen_by, out, logsumexp)


def _rows_backward(residuals, d_out):
    dq, dk, dv = lax.map(lambda row: _backward(*row), (*residuals, d_out))
    return dq, dk, dv, None, None


_rows.defvjp(_rows_forward, _rows_backward)


def _forward(q, k, v, visits):
    """One row: output [N, T, H] and the log of each query's sum of exponentials [N, T]."""
    heads, length, _ = q.shape

    def query_block(i):
        qi, first, last = _block(q, i), _slice(visits.first, i), _slice(visits.last, i)

        def key_block(j, carry):
            acc, top, total = carry
            scores = _scores(qi, _block(k, j))
            allowed = _within(j, first, last)
            scores = jnp.where(allowed, scores, _MASKED)
            new_top = jnp.maximum(top, scores.max(-1))
            weights = jnp.exp(scores - new_top[..., None])
            shrink = jnp.exp(top - new_top)
            acc = acc * shrink[..., None] + _matmul(
                "NTS,NSH->NTH", weights.astype(v.dtype), _block(v, j)
            )
            return acc, new_top, total * shrink + weights.sum(-1)

        acc, top, total = lax.fori_loop(
            visits.start[i],
            visits.start[i] + visits.count[i],
            key_block,
            (
                jnp.zeros(qi.shape, jnp.float32),
                jnp.full(qi.shape[:-1], _MASKED),
                jnp.zeros(qi.shape[:-1], jnp.float32),
            ),
        )
        empty = first > last
        total = jnp.where(empty, 1.0, total)
        out = jnp.where(empty[:, None], 0.0, acc / total[..., None])
        return out.astype(q.dtype), top + jnp.log(total)

    out, logsumexp = lax.map(query_block, jnp.arange(length // BLOCK))
    return _join(out), logsumexp.swapaxes(0, 1).reshape(heads, length)


def _backward(q, k, v, visits, out, logsumexp, d_out):
    """One row: the cotangents of q, k and v, [N, T, H] each."""
    length, scale = q.shape[1], q.shape[-1] ** -0.5
    row_dot = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), -1)

    def key_block(dq, j):
        kj, vj = _block(k, j), _block(v, j)
        first, last = _slice(visits.first, j), _slice(visits.last, j)

        def query_block(i, carry):
            dq, dk, dv = carry
            qi, d_out_i = _block(q, i), _block(d_out, i)
            allowed = _within(i, first, last).swapaxes(0, 1)
            scores = _scores(qi, kj) - _block(logsumexp, i)[..., None]
            weights = jnp.where(allowed, jnp.exp(scores), 0.0)
            d_weights = _matmul("NTH,NSH->NTS", d_out_i, vj) - _block(row_dot, i)[..., None]
            d_scores = (weights * d_weights * scale).astype(q.dtype)
            dv += _matmul("NTS,NTH->NSH", weights.astype(d_out.dtype), d_out_i)
            dk += _matmul("NTS,NTH->NSH", d_scores, qi)
            dqi = _block(dq, i) + _matmul("NTS,NSH->NTH", d_scores, kj)
            return lax.dynamic_update_slice_in_dim(dq, dqi, i * BLOCK, axis=1), dk, dv

        zeros = jnp.zeros(kj.shape, jnp.float32)
        stop = visits.start[j] + visits.count[j]
        dq, dk, dv = lax.fori_loop(visits.start[j], stop, query_block, (dq, zeros, zeros))
        return dq, (dk.astype(k.dtype), dv.astype(v.dtype))

    dq, (dk, dv) = lax.scan(key_block, jnp.zeros(q.shape, jnp.float32), jnp.arange(length // BLOCK))
    return dq.astype(q.dtype), _join(dk), _join(dv)


def _block(x, i):
    """Block `i` of x [N, T, ...]."""
    return lax.dynamic_slice_in_dim(x, i * BLOCK, BLOCK, axis=1)


def _slice(x, i):
    """Block `i` of x [T]."""
    return lax.dynamic_slice_in_dim(x, i * BLOCK, BLOCK)


def _within(i, first, last):
    """Whether each token's interval holds each token of block `i`: boolean [C, C]."""
    there = i * BLOCK + jnp.arange(BLOCK)
    return (there >= first[:, None]) & (there <= last[:, None])


def _scores(q, k):
    return _matmul("NTH,NSH->NTS", q, k) * q.shape[-1] ** -0.5


def _matmul(spec, a, b):
    exact = precision(a.dtype)
    return jnp.einsum(spec, a, b, precision=exact, preferred_element_type=jnp.float32)


def _join(blocks):
    """[blocks, N, C, H] to [N, T, H]."""
    return blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1, blocks.shape[-1])

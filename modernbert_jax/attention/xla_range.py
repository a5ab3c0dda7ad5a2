"""Flash attention in plain XLA that visits only the keys inside the ranges.

Queries are divided into blocks. The keys of a block are between two bounds, read from the data at
run time; a loop visits them from the first one on, `VISIT` keys at a time:

    queries  [- block 0 -][- block 1 -][- block 2 -]
    keys               |== visit 0 ==|== visit 1 ==|     of block 1

Visits need no alignment, so that a window of 128 around 64 queries is a single one of 192 keys.
Work depends on the documents and the window, memory on the length. The softmax is that of
FlashAttention-2 (Dao 2023): the sum `total` and the output are rescaled where a visit raises the
maximum `top`. From the logarithm of the sum, `lse`, the backward pass recomputes the weights; it is
the transposed loop, in which blocks of keys visit the queries that see them.

First-order reverse differentiation only. Rows are computed one after another.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax import rope
from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.ranges import UNIT, KeyRanges
from modernbert_jax.platform import device, precision
from modernbert_jax.rope import RopeTable

BLOCK = 128
"""Queries of a block; for windows, and in the backward pass with its five products, `UNIT`."""

VISIT = 256
"""Largest number of tokens of a visit. All three sizes were measured on CPU: see
docs/how/attention.md."""

BACKWARD_VISIT = 128
"""The same for the backward pass, which holds more scores."""

_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)
"""Score of masked keys; finite, so that a visit without keys gives no NaN."""


def refuses(call: Call) -> None:
    """None: every call is supported."""


def rotate(x: jax.Array, table: RopeTable) -> jax.Array:
    """`rope.rotate` of `x` [B, T, N, H], in the faster form for the platform."""
    on_cpu = device()[0] == "cpu"
    return rope.rotate_by_products(x, table) if on_cpu else rope.rotate(x, table)


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    ranges: KeyRanges,
    *,
    window: int | None,
    block_q: int | None = None,
    block_k: int = VISIT,
) -> jax.Array:
    """Attention [B, T, N, H] over the ranges, in memory proportional to the tokens.

    Args:
        q: [B, T, N, H].
        k, v: [B, S, N, H].
        block_q: queries in a block, a multiple of 64; 64 under a window and else 128 if not given.
        block_k: tokens in a visit; fewer where a window or a short row needs no more, and in
            the backward pass.
    """
    length = q.shape[1]
    block_q = block_q or (BLOCK if window is None else UNIT)
    block_q = min(block_q, -(-length // UNIT) * UNIT)
    sizes = _Sizes(block_q, block_k, window)

    def heads_first(x, block):
        return jnp.pad(x, ((0, 0), (0, -x.shape[1] % block), (0, 0), (0, 0))).swapaxes(1, 2)

    spans = _spans(ranges, block_q), _spans(ranges.transposed, UNIT)
    k, v = (heads_first(x, UNIT) for x in (k, v))
    out = _rows(heads_first(q, block_q), k, v, *spans, sizes)
    return out.swapaxes(1, 2)[:, :length]


class _Sizes(NamedTuple):
    """Static sizes, in tokens."""

    queries: int
    most: int
    window: int | None

    def visit(self, block: int, length: int) -> int:
        """Tokens of a visit by a block of `block` tokens, out of `length`."""
        reach = length if self.window is None else block + 2 * (self.window // 2)
        return min(self.most, reach, length)


class _Spans(NamedTuple):
    """Keys of tokens, `first` and `last` [B, T], and of blocks, `start` and `stop` [B, T/C]."""

    first: jax.Array
    last: jax.Array
    start: jax.Array
    stop: jax.Array


def _spans(ranges: KeyRanges, size: int) -> _Spans:
    tail = -ranges.first.shape[1] % size
    first = jnp.pad(ranges.first, ((0, 0), (0, tail)), constant_values=1)
    last = jnp.pad(ranges.last, ((0, 0), (0, tail)), constant_values=0)
    blocks = ranges.blocks(size, 1)
    whole = ((0, 0), (0, first.shape[1] // size - blocks.start.shape[1]))
    start, stop = (jnp.pad(x, whole) for x in (blocks.start, blocks.start + blocks.number))
    return _Spans(first, last, start, stop)


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def _rows(q, k, v, seen, seen_by, sizes):
    """Attention of q [B, N, T, H] over k and v [B, N, S, H], T a multiple of the block."""
    return _rows_forward(q, k, v, seen, seen_by, sizes)[0]


def _rows_forward(q, k, v, seen, seen_by, sizes):
    def row(arrays):
        return _forward(*arrays, sizes.queries, sizes.visit(sizes.queries, k.shape[2]))

    out, lse = lax.map(row, (q, k, v, seen))
    return out, (q, k, v, seen_by, out, lse)


def _rows_backward(sizes, residuals, d_out):
    def row(arrays):
        visit = min(BACKWARD_VISIT, sizes.visit(UNIT, d_out.shape[2]))
        return _backward(*arrays, UNIT, visit)

    dq, dk, dv = lax.map(row, (*residuals, d_out))
    return dq, dk, dv, None, None


_rows.defvjp(_rows_forward, _rows_backward)


def _forward(q, k, v, spans, block, visit):
    """Output [N, T, H] of a row, and the logarithms of its sums of exponentials [N, T]."""
    heads, length, _ = q.shape

    def query_block(i):
        qi = _cut(q, i * block, block)
        first, last = (_cut(x[None], i * block, block)[0] for x in (spans.first, spans.last))
        start, stop = spans.start[i], spans.stop[i]

        def keys(n, carry):
            acc, top, total = carry
            at, allowed = _visit(start, n, visit, k.shape[1], first, last)
            scores = jnp.where(allowed, _scores(qi, _cut(k, at, visit)), _MASKED)
            new_top = jnp.maximum(top, scores.max(-1))
            weights = jnp.exp(scores - new_top[..., None])
            shrink = jnp.exp(top - new_top)
            product = _matmul("NTS,NSH->NTH", weights.astype(v.dtype), _cut(v, at, visit))
            return acc * shrink[..., None] + product, new_top, total * shrink + weights.sum(-1)

        state = (
            jnp.zeros(qi.shape, jnp.float32),
            jnp.full(qi.shape[:-1], _MASKED),
            jnp.zeros(qi.shape[:-1], jnp.float32),
        )
        acc, top, total = lax.fori_loop(0, -((start - stop) // visit), keys, state)
        empty = first > last
        total = jnp.where(empty, 1.0, total)
        out = jnp.where(empty[:, None], 0.0, acc / total[..., None])
        return out.astype(q.dtype), top + jnp.log(total)

    out, lse = lax.map(query_block, jnp.arange(length // block))
    return _join(out), lse.swapaxes(0, 1).reshape(heads, length)


def _backward(q, k, v, spans, out, lse, d_out, block, visit):
    """Cotangents of a row: of q [N, T, H], and of k and v [N, S, H].

    Scores are [N, S, T] here, keys by queries, and the cotangent of q is summed as [N, H, T]: then
    each of the five products runs along rows of its first operand, the form that is fast on CPU.
    """
    heads, length, width = q.shape
    scale = width**-0.5
    delta = jnp.sum(out.astype(jnp.float32) * d_out.astype(jnp.float32), -1)

    def key_block(dq, j):
        kj, vj = (_cut(x, j * block, block) for x in (k, v))
        first, last = (_cut(x[None], j * block, block)[0] for x in (spans.first, spans.last))
        start, stop = spans.start[j], spans.stop[j]
        kj_columns = kj.swapaxes(1, 2)

        def queries(n, carry):
            dq, dk, dv = carry
            at, allowed = _visit(start, n, visit, length, first, last)
            qi, d_out_i = (_cut(x, at, visit) for x in (q, d_out))
            lse_i, delta_i = (_cut(x, at, visit)[:, None] for x in (lse, delta))
            weights = jnp.where(allowed, jnp.exp(_scores(kj, qi) - lse_i), 0.0)
            d_weights = _matmul("NSH,NTH->NST", vj, d_out_i) - delta_i
            d_scores = (weights * d_weights * scale).astype(q.dtype)
            dv += _matmul("NST,NTH->NSH", weights.astype(d_out.dtype), d_out_i)
            dk += _matmul("NST,NTH->NSH", d_scores, qi)
            dqi = _matmul("NHS,NST->NHT", kj_columns, d_scores)
            dqi += lax.dynamic_slice_in_dim(dq, at, visit, axis=2)
            return lax.dynamic_update_slice_in_dim(dq, dqi, at, axis=2), dk, dv

        zeros = jnp.zeros(kj.shape, jnp.float32)
        visits = -((start - stop) // visit)
        dq, dk, dv = lax.fori_loop(0, visits, queries, (dq, zeros, zeros))
        return dq, (dk.astype(k.dtype), dv.astype(v.dtype))

    blocks = jnp.arange(k.shape[1] // block)
    dq, (dk, dv) = lax.scan(key_block, jnp.zeros((heads, width, length), jnp.float32), blocks)
    return dq.swapaxes(1, 2).astype(q.dtype), _join(dk), _join(dv)


def _cut(x, at, size):
    """Tokens `at`, ..., `at + size - 1` of x [N, T, ...]."""
    return lax.dynamic_slice_in_dim(x, at, size, axis=1)


def _visit(start, n, size, length, first, last):
    """Start of visit `n`, and whether each token sees each of its tokens: boolean [C, size].

    At the end of the row a visit moves back to fit; tokens that it repeats are masked.
    """
    wanted = start + n * size
    at = jnp.minimum(wanted, length - size)
    there = at + jnp.arange(size)
    return at, (there >= jnp.maximum(first, wanted)[:, None]) & (there <= last[:, None])


def _scores(q, k):
    return _matmul("NTH,NSH->NTS", q, k) * q.shape[-1] ** -0.5


def _matmul(spec, a, b):
    exact = precision(a.dtype)
    return jnp.einsum(spec, a, b, precision=exact, preferred_element_type=jnp.float32)


def _join(blocks):
    """[blocks, N, C, H] to [N, T, H]."""
    return blocks.swapaxes(0, 1).reshape(blocks.shape[1], -1, blocks.shape[-1])

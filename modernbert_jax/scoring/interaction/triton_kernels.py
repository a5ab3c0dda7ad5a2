"""MaxSim on GPU: the four kernels, whose programs compute one document each, or a tile of queries.

A program visits the document's tokens, a tile at a time, with a tile of query tokens, and keeps the
maximum of each pair of places in the tiles; it is reduced once, at the end of the document:

    tokens of a document    start |---- 0 ----|---- 1 ----|--- 2 ---| stop
    best [queries, visit]         max of the products of all visits, then of the row

    forward    a document and 16 queries, whose tokens are consecutive: sums of the maxima
    winners    a document and a tile of query tokens: the token of each maximum, by which
    dq         a tile of query tokens: dq += gradient * d[winner], over documents
    dd         a tile of a document: dd += (token == winner) * gradient . q, over query tokens

`query_ref` has the first of the query tokens, the one after the last, and the place of their first
query. They are all tokens, or those of a window of 16 queries, or, where each document has a query
of its own, those of that query. dq then visits only documents of its queries, from a sorted list.

The last visit begins earlier where it would leave the array; tokens that it repeats change no
maximum. Every result is written by one program in a fixed order of sums: runs repeat to the bit.
"""

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from modernbert_jax.platform import interpreted

WINDOW = 16
"""Queries of a program of the forward kernel, beginning with the place in `query_ref`."""

_LOWEST = -1e30
"""Product with a masked token."""


def maxsim_forward(q_ref, place_ref, d_ref, own_ref, query_ref, text_ref, out_ref, *, tile):
    """Compute the scores of a document and of the queries of a window."""
    text = pl.program_id(0)
    begin, end, start, stop = query_ref[0], query_ref[1], text_ref[0], text_ref[1]
    query = query_ref[2] + jnp.arange(WINDOW)

    def queries(n, total):
        at, fresh = _visit(begin, n, tile.q, q_ref.shape[0])
        q, place = plgpu.load(q_ref.at[at]), plgpu.load(place_ref.at[at])

        def visit(j, best):
            at, _ = _visit(start, j, tile.d, d_ref.shape[0])
            return jnp.maximum(best, _products(q, d_ref, own_ref, at, text))

        best = jnp.full((tile.q, tile.d), _LOWEST, jnp.float32)
        best = lax.fori_loop(0, pl.cdiv(stop - start, tile.d), visit, best).max(1)
        counts = fresh[:, None] & (place[:, None] == query[None])
        return total + jnp.where(counts, best[:, None], 0.0).sum(0)

    total = lax.fori_loop(0, pl.cdiv(end - begin, tile.q), queries, jnp.zeros(WINDOW, jnp.float32))
    plgpu.store(out_ref, jnp.where(start < stop, total, 0.0))


def maxsim_winners(q_ref, d_ref, own_ref, query_ref, text_ref, winner_ref, *, tile):
    """Find the token that has the maximum of each query token; -1 in a document without tokens."""
    text, start, stop = pl.program_id(0), text_ref[0], text_ref[1]
    first = query_ref[0] + pl.program_id(1) * tile.q
    stop = jnp.where(first < query_ref[1], stop, start)
    q = plgpu.load(q_ref.at[pl.ds(jnp.minimum(first, query_ref[1]), tile.q)])

    def visit(j, carry):
        best, first = carry
        at, _ = _visit(start, j, tile.d, d_ref.shape[0])
        products = _products(q, d_ref, own_ref, at, text)
        better = products > best
        return jnp.where(better, products, best), jnp.where(better, at.start, first)

    shape = (tile.q, tile.d)
    carry = jnp.full(shape, _LOWEST, jnp.float32), jnp.full(shape, -1, jnp.int32)
    best, first = lax.fori_loop(0, pl.cdiv(stop - start, tile.d), visit, carry)
    token = first + jnp.arange(tile.d)[None]
    token = jnp.where(best == best.max(1)[:, None], token, d_ref.shape[0])
    plgpu.store(winner_ref, jnp.where(start < stop, token.min(1), -1))


def maxsim_dq(place_ref, d_ref, winner_ref, gradient_ref, *others, tile):
    """Compute dq of a tile of query tokens, of all documents or of those in a list.

    The list has numbers of documents, `list_ref`, of which a tile visits those from `visit_ref[0]`
    to `visit_ref[1]`; `query_ref` is that of all documents.
    """
    *pairs, dq_ref = others
    first = pl.program_id(0) * tile.q
    place = plgpu.load(place_ref)
    dimension = jnp.broadcast_to(jnp.arange(dq_ref.shape[1])[None], dq_ref.shape)

    def text(n, total):
        if pairs:
            list_ref, _, query_ref = pairs
            n = list_ref[n]
            at = first + jnp.arange(tile.q) - query_ref[n, 0]
            token = plgpu.load(winner_ref.at[n, jnp.clip(at, 0, winner_ref.shape[1] - 1)])
            weight = _weight(gradient_ref, n, place, token, query_ref[n, 2])
        else:
            token = plgpu.load(winner_ref.at[n, pl.ds(first, tile.q)])
            weight = _weight(gradient_ref, n, place, token)
        token = jnp.broadcast_to(jnp.maximum(token, 0)[:, None], dq_ref.shape)
        d = plgpu.load(d_ref.at[token, dimension])
        return total + weight[:, None] * d.astype(jnp.float32)

    start, stop = (pairs[1][0], pairs[1][1]) if pairs else (0, winner_ref.shape[0])
    zeros = jnp.zeros(dq_ref.shape, jnp.float32)
    plgpu.store(dq_ref, lax.fori_loop(start, stop, text, zeros))


def maxsim_dd(
    q_ref, place_ref, own_ref, winner_ref, gradient_ref, query_ref, text_ref, _, dd_ref, *, tile
):
    """Compute dd of a tile of a document."""
    text, start, stop = pl.program_id(0), text_ref[0], text_ref[1]
    begin, end = query_ref[0], query_ref[1]
    query = query_ref[2] if gradient_ref.shape[1] == 1 else None
    here = start + pl.program_id(1) * tile.d
    at, _ = _visit(here, 0, tile.d, dd_ref.shape[0])
    token = at.start + jnp.arange(tile.d)

    def queries(n, total):
        these = pl.ds(begin + n * tile.q, tile.q)
        q, place = plgpu.load(q_ref.at[these]), plgpu.load(place_ref.at[these])
        winner = plgpu.load(winner_ref.at[text, pl.ds(n * tile.q, tile.q)])
        weight = _weight(gradient_ref, text, place, winner, query)
        p = jnp.where(winner[None] == token[:, None], weight[None], 0.0)
        return total + _dot(p.astype(q.dtype), q)

    tiles = jnp.where(here < stop, pl.cdiv(end - begin, tile.q), 0)
    zeros = jnp.zeros((tile.d, q_ref.shape[1]), jnp.float32)
    total = lax.fori_loop(0, tiles, queries, zeros)
    own = (plgpu.load(own_ref.at[at]) == text) & (here < stop)
    plgpu.store(dd_ref.at[at], total.astype(dd_ref.dtype), mask=own[:, None])


def _visit(start, n, size, length):
    """Tokens of visit `n` from `start` on, and which of them no visit before had."""
    wanted = start + n * size
    at = jnp.minimum(wanted, length - size)
    return pl.ds(at, size), at + jnp.arange(size) >= wanted


def _products(q, d_ref, own_ref, at, text):
    """Products of query tokens with the visited tokens; the lowest with those of other texts."""
    own = plgpu.load(own_ref.at[at]) == text
    return jnp.where(own[None], _dot(q, plgpu.load(d_ref.at[at]).T), _LOWEST)


def _weight(gradient_ref, text, place, winner, query=None):
    """Gradient of each query token's maximum in a document; 0 if one of the two does not count.

    With a query: 0 also for tokens of others. The gradients are [documents, 1] then.
    """
    if query is None:
        counts = (place >= 0) & (winner >= 0)
        weight = plgpu.load(gradient_ref.at[text, jnp.maximum(place, 0)])
    else:
        counts, weight = (place == query) & (winner >= 0), gradient_ref[text, 0]
    return jnp.where(counts, weight, 0.0)


def _dot(a, b):
    """Product; of float32 in three parts, as tensor cores round factors to ten bits."""
    precision = None
    if a.dtype == jnp.float32 and not interpreted():
        precision = lax.DotAlgorithmPreset.TF32_TF32_F32_X3
    return plgpu.dot(a, b, precision=precision)

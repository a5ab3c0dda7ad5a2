"""MaxSim in plain XLA: a block of query tokens visits the tokens of one document at a time.

    tokens of a row       [- document 1 -][------ document 2 ------][pad]
    visits of document 2                  |== 0 ==|== 1 ==|== 2 ==|        2 steps back to fit

Each visit is a product [block, visit], of which only the running maximum stays. The last visit may
begin earlier or cover other documents' tokens, which are masked; tokens that it repeats do not
change a maximum. The backward pass computes the products again, for the place of each maximum: the
gradients are then sums over these winning tokens alone, so that it costs little more than the
forward pass. Rows are computed one after another. First-order reverse differentiation only.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.platform import precision

from .choice import Call
from .numbering import spans

BLOCK = 2048
"""Query tokens of a block: its products with a visit fit into a second-level cache."""

VISIT = 64
"""Document tokens of a visit."""

_LOWEST = -0.7 * float(jnp.finfo(jnp.float32).max)
"""Product with a masked token; finite, because differences of infinities are NaN."""


def refuses(call: Call) -> None:
    """None: every call is supported."""


@functools.partial(jax.jit, static_argnums=(4, 5))
def scores(
    q: jax.Array, places: jax.Array, d: jax.Array, segment_ids: jax.Array, queries: int, texts: int
) -> jax.Array:
    """MaxSim of all documents with all queries, [rows, S, queries]; see `scores`."""
    q, places = _in_blocks(q, places, min(BLOCK, max(len(q), 1)))
    start, stop, _ = spans(segment_ids, texts)
    return _scores(q, places, d, (segment_ids, start, stop), queries)


@functools.partial(jax.jit, static_argnums=5)
def paired(
    q: jax.Array,
    places: jax.Array,
    d: jax.Array,
    segment_ids: jax.Array,
    own: jax.Array,
    queries: int,
) -> jax.Array:
    """MaxSim of each document with its own query, [rows, S]; see `scores`."""
    start, stop, _ = spans(segment_ids, own.shape[1])
    begin, end, _ = spans(places[None] + 1, queries)
    begin, end = (x[0].at[own].get(mode="fill", fill_value=0) for x in (begin, end))
    begin, end = (jnp.where(own < 0, 0, x) for x in (begin, end))
    return _paired(q, places, d, (segment_ids, start, stop, own, begin, end))


def _in_blocks(q, places, size):
    """Tokens in blocks, [blocks, size, E] and [blocks, size]; added ones do not count."""
    tail = -len(q) % size
    q = jnp.pad(q, ((0, tail), (0, 0)))
    places = jnp.pad(places, (0, tail), constant_values=-1)
    return q.reshape(-1, size, q.shape[1]), places.reshape(-1, size)


def _winners(q, row, segment, start, stop):
    """The largest product of each query token [B] with a document of a row, and its token [B].

    Args:
        q: [B, E].
        row: tokens [T, E] and segment ids [T].
        segment: id of the document.
        start, stop: its first token, and the one after its last.
    """
    tokens, ids = row
    visit = min(VISIT, len(tokens))
    here = jnp.arange(visit, dtype=jnp.int32)

    def step(n, carry):
        best, token = carry
        at = jnp.minimum(start + n * visit, len(tokens) - visit)
        products = jnp.matmul(
            q,
            lax.dynamic_slice_in_dim(tokens, at, visit).T,
            precision=precision(q.dtype),
            preferred_element_type=jnp.float32,
        )
        own = lax.dynamic_slice_in_dim(ids, at, visit) == segment
        products = jnp.where(own, products, _LOWEST)
        highest = products.max(-1)
        first = at + jnp.where(products == highest[:, None], here, visit).min(-1)
        return jnp.maximum(best, highest), jnp.where(highest > best, first, token)

    visits = -((start - stop) // visit)
    nothing = jnp.full(len(q), _LOWEST), jnp.zeros(len(q), jnp.int32)
    best, token = lax.fori_loop(0, jnp.maximum(visits, 0), step, nothing)
    return jnp.where(start < stop, best, 0.0), jnp.minimum(token, len(tokens) - 1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _scores(q, places, d, layout, queries):
    """Scores [rows, S, queries] from blocks of query tokens."""

    def row(arrays):
        tokens, (ids, start, stop) = arrays
        texts = jnp.arange(1, len(start) + 1, dtype=jnp.int32)

        def block(total, arrays):
            own, place = arrays

            def document(arrays):
                return _winners(own, (tokens, ids), *arrays)[0]

            best = lax.map(document, (texts, start, stop))
            return total.at[_kept(place, queries)].add(best.T, mode="drop"), None

        nothing = jnp.zeros((queries, len(start)), jnp.float32)
        return lax.scan(block, nothing, (q, places))[0]

    return lax.map(row, (d, layout)).swapaxes(1, 2)


def _scores_forward(q, places, d, layout, queries):
    return _scores(q, places, d, layout, queries), (q, places, d, layout)


def _scores_backward(queries, residuals, cotangent):
    q, places, d, layout = residuals

    def row(dq, arrays):
        tokens, (ids, start, stop), g = arrays
        texts = jnp.arange(1, len(start) + 1, dtype=jnp.int32)

        def block(d_tokens, arrays):
            own, place, dq = arrays
            kept = _kept(place, queries)

            def document(carry, arrays):
                *document, g = arrays
                weight = g.at[kept].get(mode="fill", fill_value=0)
                return _spread(carry, own, (tokens, ids), document, weight), None

            (dq, d_tokens), _ = lax.scan(document, (dq, d_tokens), (texts, start, stop, g))
            return d_tokens, dq

        d_tokens = jnp.zeros(tokens.shape, jnp.float32)
        d_tokens, dq = lax.scan(block, d_tokens, (q, places, dq))
        return dq, d_tokens.astype(d.dtype)

    dq, dd = lax.scan(row, jnp.zeros(q.shape, jnp.float32), (d, layout, cotangent))
    return dq.astype(q.dtype), None, dd, None


_scores.defvjp(_scores_forward, _scores_backward)


def _spread(carry, q, row, document, weight):
    """Add a document's share to the gradients of query tokens [B, E] and of its row [T, E].

    Args:
        carry: both gradients.
        q: [B, E].
        row: tokens [T, E] and segment ids [T].
        document: its segment id, start and stop.
        weight: gradient of each query token's maximum, [B].
    """
    dq, d_tokens = carry
    _, token = _winners(q, row, *document)
    _, start, stop = document
    weight = jnp.where(start < stop, weight, 0)[:, None]
    return (
        dq + weight * row[0][token].astype(jnp.float32),
        d_tokens.at[token].add(weight * q.astype(jnp.float32)),
    )


def _kept(places, queries):
    """Places with those that do not count beyond the last one, where an update is dropped."""
    return jnp.where(places < 0, queries, places)


@jax.custom_vjp
def _paired(q, places, d, layout):
    """Scores [rows, S] of documents with their own queries."""

    def row(arrays):
        tokens, (ids, *documents) = arrays

        def document(arrays):
            segment, start, stop, *query = arrays

            def visit(n, total):
                _, own, counts = _query_visit(q, places, n, *query)
                best, _ = _winners(own, (tokens, ids), segment, start, stop)
                return total + jnp.where(counts, best, 0).sum()

            return lax.fori_loop(0, _query_visits(q, *query), visit, jnp.float32(0))

        texts = jnp.arange(1, len(documents[0]) + 1, dtype=jnp.int32)
        return lax.map(document, (texts, *documents))

    return lax.map(row, (d, layout))


def _paired_forward(q, places, d, layout):
    return _paired(q, places, d, layout), (q, places, d, layout)


def _paired_backward(residuals, cotangent):
    q, places, d, layout = residuals

    def row(dq, arrays):
        tokens, (ids, *documents), g = arrays

        def document(carry, arrays):
            segment, start, stop, *query, g = arrays

            def visit(n, carry):
                dq, d_tokens = carry
                at, own, counts = _query_visit(q, places, n, *query)
                share = lax.dynamic_slice_in_dim(dq, at, len(own)), d_tokens
                weight = jnp.where(counts, g, 0)
                share = _spread(share, own, (tokens, ids), (segment, start, stop), weight)
                return lax.dynamic_update_slice_in_dim(dq, share[0], at, 0), share[1]

            return lax.fori_loop(0, _query_visits(q, *query), visit, carry), None

        texts = jnp.arange(1, len(documents[0]) + 1, dtype=jnp.int32)
        d_tokens = jnp.zeros(tokens.shape, jnp.float32)
        (dq, d_tokens), _ = lax.scan(document, (dq, d_tokens), (texts, *documents, g))
        return dq, d_tokens.astype(d.dtype)

    dq, dd = lax.scan(row, jnp.zeros(q.shape, jnp.float32), (d, layout, cotangent))
    return dq.astype(q.dtype), None, dd, None


_paired.defvjp(_paired_forward, _paired_backward)


def _query_visit(q, places, n, own, begin, end):
    """Start of visit `n` to a query's tokens, the tokens, and whether each counts in this visit."""
    visit = min(VISIT, len(q))
    at = jnp.minimum(begin + n * visit, len(q) - visit)
    here = at + jnp.arange(visit, dtype=jnp.int32)
    counts = (here >= begin + n * visit) & (here < end)
    counts &= lax.dynamic_slice_in_dim(places, at, visit) == own
    return at, lax.dynamic_slice_in_dim(q, at, visit), counts


def _query_visits(q, own, begin, end):
    visit = min(VISIT, len(q))
    return jnp.maximum(-((begin - end) // visit), 0)

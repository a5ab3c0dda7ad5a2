"""MaxSim of documents with their own queries in plain XLA: one document after another.

The tokens of its query are visited too, as `xla_visits` says of documents.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from . import xla_visits
from .numbering import spans
from .xla_visits import count, part


@functools.partial(jax.jit, static_argnums=(5, 6))
def paired(
    q: jax.Array,
    places: jax.Array,
    d: jax.Array,
    segment_ids: jax.Array,
    own: jax.Array,
    queries: int,
    longest: int,
) -> jax.Array:
    """MaxSim of each document with its own query, [rows, S]; see `scores`."""
    start, stop, _ = spans(segment_ids, own.shape[1])
    begin, end, _ = spans(places[None] + 1, queries)
    begin, end = (x[0].at[own].get(mode="fill", fill_value=0) for x in (begin, end))
    begin, end = (jnp.where(own < 0, 0, x) for x in (begin, end))
    return _paired(q, places, d, (segment_ids, start, stop, own, begin, end))


@jax.custom_vjp
def _paired(q, places, d, layout):
    """Scores [rows, S] of documents with their own queries."""

    def row(arrays):
        number, (ids, *documents) = arrays
        tokens = part(d, number)

        def document(arrays):
            segment, start, stop, *query = arrays

            def visit(n, total):
                _, own, counts = _query_visit(q, places, n, *query)
                best, _ = xla_visits.winners(own, (tokens, ids), segment, start, stop)
                return total + jnp.where(counts, best, 0).sum()

            return lax.fori_loop(0, _query_visits(q, *query), visit, jnp.float32(0))

        texts = jnp.arange(1, len(documents[0]) + 1, dtype=jnp.int32)
        return lax.map(document, (texts, *documents))

    return lax.map(row, (count(d), layout))


def _paired_forward(q, places, d, layout):
    return _paired(q, places, d, layout), (q, places, d, layout)


def _paired_backward(residuals, cotangent):
    q, places, d, layout = residuals

    def row(dq, arrays):
        number, (ids, *documents), g = arrays
        tokens = part(d, number)

        def document(carry, arrays):
            segment, start, stop, *query, g = arrays

            def visit(n, carry):
                dq, d_tokens = carry
                at, own, counts = _query_visit(q, places, n, *query)
                share = lax.dynamic_slice_in_dim(dq, at, len(own)), d_tokens
                weight = jnp.where(counts, g, 0)
                share = xla_visits.spread(share, own, (tokens, ids), (segment, start, stop), weight)
                return lax.dynamic_update_slice_in_dim(dq, share[0], at, 0), share[1]

            return lax.fori_loop(0, _query_visits(q, *query), visit, carry), None

        texts = jnp.arange(1, len(documents[0]) + 1, dtype=jnp.int32)
        d_tokens = jnp.zeros(tokens.shape, jnp.float32)
        (dq, d_tokens), _ = lax.scan(document, (dq, d_tokens), (texts, *documents, g))
        return dq, d_tokens.astype(d.dtype)

    dq, dd = lax.scan(row, jnp.zeros(q.shape, jnp.float32), (count(d), layout, cotangent))
    return dq.astype(q.dtype), None, dd, None


_paired.defvjp(_paired_forward, _paired_backward)


def _query_visit(q, places, n, own, begin, end):
    """Start of visit `n` to a query's tokens, the tokens, and whether each counts in this visit."""
    visit = min(xla_visits.VISIT, len(q))
    at = jnp.minimum(begin + n * visit, len(q) - visit)
    here = at + jnp.arange(visit, dtype=jnp.int32)
    counts = (here >= begin + n * visit) & (here < end)
    counts &= lax.dynamic_slice_in_dim(places, at, visit) == own
    return at, lax.dynamic_slice_in_dim(q, at, visit), counts


def _query_visits(q, own, begin, end):
    visit = min(xla_visits.VISIT, len(q))
    return jnp.maximum(-((begin - end) // visit), 0)

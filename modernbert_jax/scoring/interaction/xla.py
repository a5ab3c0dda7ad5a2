"""MaxSim in plain XLA: a block of query tokens visits one document at a time (`xla_visits`).

The backward pass computes the products again, for the place of each maximum: the gradients are then
sums over these winning tokens alone, so that it costs little more than the forward pass. Rows are
computed one after another. First-order reverse differentiation only.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from . import xla_visits
from .choice import Call
from .numbering import spans
from .xla_paired import paired
from .xla_visits import count, part

__all__ = ["paired", "refuses", "scores"]

BLOCK = 2048
"""Query tokens of a block: its products with a visit fit into a second-level cache."""


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


def _in_blocks(q, places, size):
    """Tokens in blocks, [blocks, size, E] and [blocks, size]; added ones do not count."""
    tail = -len(q) % size
    q = jnp.pad(q, ((0, tail), (0, 0)))
    places = jnp.pad(places, (0, tail), constant_values=-1)
    return q.reshape(-1, size, q.shape[1]), places.reshape(-1, size)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _scores(q, places, d, layout, queries):
    """Scores [rows, S, queries] from blocks of query tokens."""

    def row(arrays):
        number, (ids, start, stop) = arrays
        tokens = part(d, number)
        texts = jnp.arange(1, len(start) + 1, dtype=jnp.int32)

        def block(total, arrays):
            number, place = arrays
            own = part(q, number)

            def document(arrays):
                return xla_visits.winners(own, (tokens, ids), *arrays)[0]

            best = lax.map(document, (texts, start, stop))
            return total.at[_kept(place, queries)].add(best.T, mode="drop"), None

        nothing = jnp.zeros((queries, len(start)), jnp.float32)
        return lax.scan(block, nothing, (count(q), places))[0]

    return lax.map(row, (count(d), layout)).swapaxes(1, 2)


def _scores_forward(q, places, d, layout, queries):
    return _scores(q, places, d, layout, queries), (q, places, d, layout)


def _scores_backward(queries, residuals, cotangent):
    q, places, d, layout = residuals

    def row(dq, arrays):
        number, (ids, start, stop), g = arrays
        tokens = part(d, number)
        texts = jnp.arange(1, len(start) + 1, dtype=jnp.int32)

        def block(d_tokens, arrays):
            number, place, dq = arrays
            own = part(q, number)
            kept = _kept(place, queries)

            def document(carry, arrays):
                *document, g = arrays
                weight = g.at[kept].get(mode="fill", fill_value=0)
                return xla_visits.spread(carry, own, (tokens, ids), document, weight), None

            (dq, d_tokens), _ = lax.scan(document, (dq, d_tokens), (texts, start, stop, g))
            return d_tokens, dq

        d_tokens = jnp.zeros(tokens.shape, jnp.float32)
        d_tokens, dq = lax.scan(block, d_tokens, (count(q), places, dq))
        return dq, d_tokens.astype(d.dtype)

    dq, dd = lax.scan(row, jnp.zeros(q.shape, jnp.float32), (count(d), layout, cotangent))
    return dq.astype(q.dtype), None, dd, None


_scores.defvjp(_scores_forward, _scores_backward)


def _kept(places, queries):
    """Places with those that do not count beyond the last one, where an update is dropped."""
    return jnp.where(places < 0, queries, places)

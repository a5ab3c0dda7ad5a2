"""What the XLA forms of MaxSim share: the visits of query tokens to the tokens of one document.

    tokens of a row       [- document 1 -][------ document 2 ------][pad]
    visits of document 2                  |== 0 ==|== 1 ==|== 2 ==|        2 steps back to fit

Each visit is a product [query tokens, visit], of which only the running maximum stays. The last
visit may begin earlier or cover other documents' tokens, which are masked; tokens that it repeats
do not change a maximum. The gradients are sums over the winning tokens alone.
"""

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.platform import precision

VISIT = 64
"""Document tokens of a visit."""

_LOWEST = -0.7 * float(jnp.finfo(jnp.float32).max)
"""Product with a masked token; finite, because differences of infinities are NaN."""


def count(x: jax.Array) -> jax.Array:
    """Numbers of the parts of an array, by which a loop visits them."""
    return jnp.arange(len(x), dtype=jnp.int32)


def part(x: jax.Array, number: jax.Array) -> jax.Array:
    """x[number] in a loop over the parts of an array.

    The barrier keeps XLA on a CPU from converting all parts of bfloat16 to float32 before the loop.
    """
    x, number = lax.optimization_barrier((x, number))
    return lax.dynamic_index_in_dim(x, number, 0, keepdims=False)


def winners(q, row, segment, start, stop):
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


def spread(carry, q, row, document, weight):
    """Add a document's share to the gradients of query tokens [B, E] and of its row [T, E].

    Args:
        carry: both gradients.
        q: [B, E].
        row: tokens [T, E] and segment ids [T].
        document: its segment id, start and stop.
        weight: gradient of each query token's maximum, [B].
    """
    dq, d_tokens = carry
    _, token = winners(q, row, *document)
    _, start, stop = document
    weight = jnp.where(start < stop, weight, 0)[:, None]
    return (
        dq + weight * row[0][token].astype(jnp.float32),
        d_tokens.at[token].add(weight * q.astype(jnp.float32)),
    )

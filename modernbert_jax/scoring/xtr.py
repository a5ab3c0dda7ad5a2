"""XTR's scores, with which late interaction is trained for retrieval by tokens (Lee et al. 2023).

A query's token counts for a document only where it retrieves one of its tokens: where that is among
the token's `top_k` most similar ones of all documents (arXiv:2304.01982, section 3.2, equation 5).
"""

import jax
import jax.numpy as jnp

from modernbert_jax.platform import precision


def xtr(
    q: jax.Array,
    q_segments: jax.Array,
    d: jax.Array,
    places: jax.Array,
    documents: int,
    top_k: int = 256,
) -> jax.Array:
    """Score every query with every document of a batch; differentiable in q and d.

    Memory holds the products of one query with all tokens at a time, also in the backward pass.

    Args:
        q: vectors of the queries' tokens, one query a row, [N, L, E].
        q_segments: int32 [N, L], 1 for tokens that count, 0 for others.
        d: vectors of the documents' tokens, [T, E].
        places: number of the document of each token, int32 [T]; -1 for tokens that do not count.
        documents: number of documents, M.
        top_k: number of tokens that a query's token retrieves.

    Returns:
        float32 [N, M]: the mean, over the query's tokens that retrieve a token of the document, of
        the largest product with it; 0 where none does.
    """
    counted = places >= 0
    target = jnp.where(counted, places, documents)

    def one(query: tuple[jax.Array, jax.Array]) -> jax.Array:
        vectors, segments = query
        products = jnp.einsum(
            "te,le->tl",
            d,
            vectors,
            precision=precision(d.dtype),
            preferred_element_type=jnp.float32,
        )
        products = jnp.where(counted[:, None], products, -jnp.inf)
        least = jax.lax.top_k(products.T, min(top_k, len(d)))[0][:, -1]
        largest = jax.ops.segment_max(products, target, documents + 1)[:-1]  # [M, L]
        retrieved = (largest >= least) & (largest > -jnp.inf) & (segments > 0)
        total = jnp.where(retrieved, largest, 0.0).sum(-1)
        return total / jnp.maximum(retrieved.sum(-1), 1)

    return jax.lax.map(jax.checkpoint(one), (q, q_segments))

"""MaxSim by its definition: the oracle, with all products of tokens in memory."""

import functools

import jax
import jax.numpy as jnp

from modernbert_jax.platform import precision

from .choice import Call


def refuses(call: Call) -> None:
    """None: every call is supported."""


def maxima(q: jax.Array, d: jax.Array, segment_ids: jax.Array, texts: int) -> jax.Array:
    """The largest product of each query token with each document, float32 [N, rows, S].

    Of equal products the first one has the gradient. It is 0 for documents without counted tokens.

    Args:
        q: [N, E].
        d: [rows, T, E].
        segment_ids: [rows, T].
        texts: documents of a row, S.
    """
    products = jnp.einsum(
        "ne,rte->nrt", q, d, precision=precision(q.dtype), preferred_element_type=jnp.float32
    )
    own = segment_ids[:, None] == jnp.arange(1, texts + 1)[:, None]
    products = jnp.where(own, products[:, :, None], -jnp.inf)
    best = jnp.take_along_axis(products, products.argmax(-1, keepdims=True), -1)[..., 0]
    return jnp.where(own.any(-1), best, 0)


@functools.partial(jax.jit, static_argnums=(4, 5))
def scores(
    q: jax.Array, places: jax.Array, d: jax.Array, segment_ids: jax.Array, queries: int, texts: int
) -> jax.Array:
    """MaxSim of all documents with all queries; see `scores.Scores`."""
    best = maxima(q, d, segment_ids, texts)
    own = (places[:, None] == jnp.arange(queries)).astype(jnp.float32)
    return jnp.einsum("nrs,nq->rsq", best, own, precision=jax.lax.Precision.HIGHEST)


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
    """MaxSim of each document with its own query; see `scores.Paired`."""
    every = scores(q, places, d, segment_ids, queries, own.shape[1])
    picked = jnp.take_along_axis(every, jnp.clip(own, 0, queries - 1)[..., None], -1)[..., 0]
    return jnp.where((own >= 0) & (own < queries), picked, 0)

"""Reference attention: all scores of a row at once, in memory quadratic in the length."""

import jax
import jax.numpy as jnp

from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.ranges import KeyRanges
from modernbert_jax.platform import precision


def refuses(call: Call) -> None:
    """None: every call is supported."""


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, ranges: KeyRanges, *, window: int | None
) -> jax.Array:
    """Attention [B, T, N, H] by its definition."""
    exact = {"precision": precision(q.dtype), "preferred_element_type": jnp.float32}
    scores = jnp.einsum("BTNH,BSNH->BNTS", q, k, **exact)
    allowed = ranges.allows(jnp.arange(k.shape[1]))[:, None]
    scores = jnp.where(allowed, scores * q.shape[-1] ** -0.5, jnp.finfo(jnp.float32).min)
    weights = jnp.where(allowed, jax.nn.softmax(scores, axis=-1), 0.0).astype(v.dtype)
    out = jnp.einsum("BNTS,BSNH->BTNH", weights, v, **exact)
    return out.astype(q.dtype)

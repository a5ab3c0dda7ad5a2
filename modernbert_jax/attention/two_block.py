"""Sliding-window attention in plain XLA: each block of queries with two blocks of keys.

Keys are shifted by half a window. Blocks of C >= window tokens then line up so that all keys of a
block of queries are in the two key blocks of the same and the next number, whatever the data:

    queries          | 0 0 0 0 | 1 1 1 1 |              C = 4, window 4: two tokens to each side
    keys         | . . 0 0 | 0 0 1 1 | 1 1 . . |

The ranges mask keys outside of the document and the window. Work and memory are proportional to the
length times C. There are no custom derivatives, so that forward mode and higher orders work.
"""

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.ranges import KeyRanges
from modernbert_jax.platform import precision

SHORTEST_BLOCK = 128
"""Tokens of a block unless the window is wider or the row shorter: the edge of a TPU's MXU."""

_MASKED = -0.7 * float(jnp.finfo(jnp.float32).max)
"""Score of masked keys; finite, so that a query without keys gives no NaN."""


def refuses(call: Call) -> str | None:
    """The reason why a call is not supported, or None."""
    if call.window is None:
        return "it computes sliding windows only"
    return "it needs queries and keys of the same tokens" if call.keys is not None else None


def attention(
    q: jax.Array, k: jax.Array, v: jax.Array, ranges: KeyRanges, *, window: int
) -> jax.Array:
    """Attention [B, T, N, H] over ranges that reach no further than `window // 2` to each side."""
    length = q.shape[1]
    reach = min(window // 2, length - 1)
    size = max(2 * reach, min(SHORTEST_BLOCK, length))
    number = -(-length // size)
    tail = number * size - length

    def blocks(x):
        """[B, T, N, H] to [B, N, blocks, C, H]."""
        return x.reshape(x.shape[0], -1, size, *x.shape[2:]).transpose(0, 3, 1, 2, 4)

    def pad(x, before, after, value=0):
        edges = [(0, 0), (before, after)] + [(0, 0)] * (x.ndim - 2)
        return jnp.pad(x, edges, constant_values=value)

    scale = q.shape[-1] ** -0.5
    q = blocks(pad(q, 0, tail))
    k, v = (blocks(pad(x, reach, tail + size - reach)) for x in (k, v))
    first = pad(ranges.first, 0, tail, 1).reshape(-1, 1, number, size, 1)
    last = pad(ranges.last, 0, tail, 0).reshape(-1, 1, number, size, 1)

    def scores(shift):
        keys = size * (jnp.arange(number) + shift)[:, None, None] + jnp.arange(size) - reach
        allowed = (keys >= first) & (keys <= last)
        products = _matmul("BNITH,BNISH->BNITS", q, k[:, :, shift : number + shift])
        return jnp.where(allowed, products * scale, _MASKED), allowed

    (here, allowed_here), (there, allowed_there) = scores(0), scores(1)
    top = lax.stop_gradient(jnp.maximum(here.max(-1), there.max(-1)))[..., None]
    here = jnp.where(allowed_here, jnp.exp(here - top), 0.0)
    there = jnp.where(allowed_there, jnp.exp(there - top), 0.0)
    out = _matmul("BNITS,BNISH->BNITH", here.astype(v.dtype), v[:, :, :-1])
    out += _matmul("BNITS,BNISH->BNITH", there.astype(v.dtype), v[:, :, 1:])
    total = here.sum(-1) + there.sum(-1)
    out /= jnp.where(total == 0, 1.0, total)[..., None]
    out = out.astype(q.dtype).transpose(0, 2, 3, 1, 4)
    return out.reshape(out.shape[0], number * size, *out.shape[3:])[:, :length]


def _matmul(spec, a, b):
    exact = {"precision": precision(a.dtype), "preferred_element_type": jnp.float32}
    return jnp.einsum(spec, a, b, **exact)

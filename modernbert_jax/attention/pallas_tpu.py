"""Attention by this library's TPU kernels, one for sliding windows and one for whole documents.

Both work on [B, T, N * H] as the projections return it, and so does the rotation before them:
neither a transposition nor padding of heads to 128 lanes reaches memory.
"""

import math

import jax
import jax.numpy as jnp

from modernbert_jax.attention import tpu_rope
from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.ranges import KeyRanges
from modernbert_jax.attention.tpu_global import global_attention
from modernbert_jax.attention.tpu_local import WIDEST, halo_of, local_attention
from modernbert_jax.attention.tpu_resident import Sizes, Visits, vmem_bytes
from modernbert_jax.attention.tpu_tiles import LANES, divisor, padded
from modernbert_jax.platform import device, interpreted
from modernbert_jax.rope import RopeTable

BLOCK = 512
"""Tokens of a block unless tuned; fewer where that does not divide the length."""

STEP = 256
"""Tokens of a step of the kernel over documents: smaller steps skip more, larger ones cost less per
score."""


def refuses(call: Call) -> str | None:
    """The reason why a call is not supported, or None."""
    if call.platform == "gpu":
        return "it is for TPU"
    if call.device_kind in ("TPU v2", "TPU v3"):
        return f"{call.device_kind} is older than v4"
    if call.dtype not in ("bfloat16", "float32"):
        return f"it computes in bfloat16 or float32, not {call.dtype}"
    if call.head_dim not in (32, 64, 128):
        return f"heads of {call.head_dim} do not fill 128 lanes; 32, 64 and 128 do"
    together = LANES // call.head_dim
    if call.heads % together:
        return (
            f"{call.heads} heads of {call.head_dim} per device do not fill tiles of 128 lanes; "
            f"a multiple of {together} heads is needed"
        )
    if _is_local(call.window) and call.keys is None:
        return None
    keys = call.keys or call.length
    if not _buffers(call.length, keys, call.dtype, call.device_kind):
        return f"a row of {keys} tokens does not fit in this TPU's vector memory"
    return None


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    ranges: KeyRanges,
    *,
    window: int | None,
    block: int = BLOCK,
    step: int = STEP,
) -> jax.Array:
    """Attention [B, T, N, H] over the ranges; see `refuses` for what it needs.

    Args:
        q: [B, T, N, H].
        k, v: [B, S, N, H].
        ranges: of the queries.
        window: the window of `ranges`. The kernel over documents computes windows that are too
            wide for the local one, and keys that are not the tokens of the queries.
        block: largest number of tokens of a block.
        step: largest number of tokens of a step of the kernel over documents.
    """
    head_dim, own = q.shape[3], q.shape[1] == k.shape[1]
    q_, k_, v_ = (padded(x.reshape(*x.shape[:2], -1)) for x in (q, k, v))
    bounds = jnp.stack([padded(ranges.first, 1), padded(ranges.last, 0)], axis=1)
    if own and window is not None and _is_local(window):
        size = divisor(q_.shape[1], block)
        out = local_attention(q_, k_, v_, bounds, head_dim, halo_of(window), size, interpreted())
    else:
        rows, queries, keys = len(q), q_.shape[1], k_.shape[1]
        # The interpreter has no limited memory.
        kind = "" if interpreted() else device()[1]
        buffers = _buffers(queries, keys, str(q.dtype), kind) or 1
        sizes = Sizes(divisor(queries, block), divisor(keys, block), buffers)
        step = divisor(math.gcd(sizes.queries, sizes.keys), step)
        bounds = bounds.reshape(rows, 2, queries // step, step).swapaxes(1, 2)
        by_queries = _visits(ranges, sizes.queries, step, queries)
        by_keys = _visits(ranges.transposed, sizes.keys, step, keys)
        out = global_attention(
            q_, k_, v_, bounds, by_queries, by_keys, head_dim, sizes, interpreted()
        )
    return out[:, : q.shape[1]].reshape(q.shape)


def _visits(ranges: KeyRanges, block: int, step: int, length: int) -> Visits:
    """Visits of every block of `length` tokens; the ranges may not cover the last one."""
    blocks = ranges.blocks(block, step)
    more = ((0, 0), (0, length // block - blocks.start.shape[1]))
    return Visits(*(jnp.pad(x, more).reshape(-1) for x in (blocks.start, blocks.number)))


def rotate(x: jax.Array, table: RopeTable) -> jax.Array:
    """`rope.rotate` of `x` [B, T, N, H], within the tiles."""
    rows, length, heads, head_dim = x.shape
    flat = x.reshape(rows, length, heads * head_dim)
    lanes = tpu_rope.lanes_table(table.cos, table.sin)
    return tpu_rope.rotate(flat, lanes, head_dim, False, interpreted()).reshape(x.shape)


def _is_local(window: int | None) -> bool:
    return window is not None and window <= WIDEST


def _buffers(queries: int, keys: int, dtype: str, device_kind: str) -> int:
    """Number of whole rows that fit in vector memory, at most 2: one computes, one loads."""
    capacity = (16 if device_kind.startswith("TPU v4") else 64) * 2**20
    fitting = (n for n in (2, 1) if vmem_bytes(queries, keys, jnp.dtype(dtype), n) <= capacity)
    return next(fitting, 0)

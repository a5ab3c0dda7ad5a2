"""Attention by jax's splash kernel, with the blocks to visit computed at run time.

Splash usually computes its tables of blocks to visit, `MaskInfo`, in advance. They are arrays, and
are computed here from the key ranges of the batch: the next block to load, and whether to compute.
Inside a block segment ids separate documents and distances bound windows, so that the same kernel
serves both kinds of layer.

It is slower than `pallas_tpu`, for which it is a fallback and a check: it copies q, k and v to
heads of 128 lanes, computes rows one by one, and visits whole blocks.
"""

import functools

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as info

from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.ranges import KeyRanges
from modernbert_jax.attention.tpu_tiles import LANES, divisor
from modernbert_jax.platform import interpreted

BLOCK_Q = 512
"""Queries of a block unless tuned; fewer where that does not divide the length."""

BLOCK_KV = {"sliding": 256, "full": 512}
"""Keys of a block unless tuned."""


def refuses(call: Call) -> str | None:
    """The reason why a call is not supported, or None."""
    if call.platform == "gpu":
        return "it is for TPU"
    if not call.symmetric or call.keys is not None:
        return "it is for encoders with whole rows, whose queries and keys see each other"
    if call.platform == "tpu" and call.dtype != "bfloat16":
        return f"it multiplies in bfloat16, and this is {call.dtype}"
    if call.head_dim not in (64, 128):
        return f"it is for heads of 64 or 128, and these have {call.head_dim}"
    return None


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    ranges: KeyRanges,
    *,
    window: int | None,
    block_q: int = BLOCK_Q,
    block_kv: int | None = None,
) -> jax.Array:
    """Attention [B, T, N, H] over symmetric ranges.

    Args:
        q, k, v: [B, T, N, H].
        ranges: of symmetric attention.
        window: the window of `ranges`.
        block_q: largest number of queries of a block.
        block_kv: largest number of keys of a block.
    """
    length, head_dim = q.shape[1], q.shape[3]
    pad = -length % LANES
    padded = length + pad
    block_q = divisor(padded, block_q)
    block_kv = divisor(padded, block_kv or BLOCK_KV["full" if window is None else "sliding"])
    q = (q.astype(jnp.float32) * head_dim**-0.5).astype(q.dtype)
    run = functools.partial(_row, window=window, block_q=block_q, block_kv=block_kv)
    q, k, v = (jnp.pad(x, ((0, 0), (0, pad), (0, 0), (0, 0))).swapaxes(1, 2) for x in (q, k, v))
    seen = _self_at_least(ranges, pad)
    visits = seen.blocks(block_q, block_kv), seen.blocks(block_kv, block_q)
    out = jax.vmap(run)(q, k, v, _segments(seen), *((x.start, x.number) for x in visits))
    out = out.swapaxes(1, 2)[:, :length]
    return jnp.where(ranges.empty[..., None, None], 0, out)


def _self_at_least(ranges: KeyRanges, pad: int) -> KeyRanges:
    """Ranges of a padded row in which padding sees itself, as splash divides by sums of weights."""
    first = jnp.pad(ranges.first, ((0, 0), (0, pad)), constant_values=1)
    last = jnp.pad(ranges.last, ((0, 0), (0, pad)), constant_values=0)
    here, empty = jnp.arange(first.shape[1], dtype=jnp.int32), first > last
    return KeyRanges.of(jnp.where(empty, here, first), jnp.where(empty, here, last))


def _segments(ranges: KeyRanges) -> jax.Array:
    """Ids of the documents, from 1: a document starts where a token is its own first key."""
    return jnp.cumsum(ranges.first == jnp.arange(ranges.first.shape[1]), axis=1, dtype=jnp.int32)


def _row(q, k, v, segments, by_queries, by_keys, *, window, block_q, block_kv):
    """Attention of one row [N, T, H]."""
    length = q.shape[1]
    queries, keys = length // block_q, length // block_kv
    sizes = kernel.BlockSizes(
        block_q=block_q,
        block_kv=block_kv,
        block_kv_compute=block_kv,
        block_q_dkv=block_q,
        block_kv_dkv=block_kv,
        block_kv_dkv_compute=block_kv,
        block_q_dq=block_q,
        block_kv_dq=block_kv,
    )
    positions = None if window is None else jnp.arange(length, dtype=jnp.int32)
    forward = _mask_info(*by_queries, _most(block_q, block_kv, window, keys))
    backward = _mask_info(*by_keys, _most(block_kv, block_q, window, queries))
    forward = forward._replace(q_sequence=positions)
    backward = info.MaskInfo(
        backward.data_next.swapaxes(1, 2), None, backward.block_mask.swapaxes(1, 2), None, positions
    )
    run = kernel.SplashAttentionKernel(
        forward,
        forward,
        backward,
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=False,
        mask_value=kernel.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=None,
        mask_function=None if window is None else _within(window // 2),
        interpret=interpreted(),
    )
    return run(q, k, v, kernel.SegmentIds(segments, segments))


def _most(size: int, other: int, window: int | None, blocks: int) -> int:
    """Upper bound on the blocks of `other` tokens that a block of `size` tokens visits."""
    if window is None:
        return blocks
    return min(blocks, (size - 1 + 2 * (window // 2)) // other + 2)


def _mask_info(start, count, width: int) -> info.MaskInfo:
    """Splash's table [1, n, width] of blocks to load and to compute, from visits [n]."""
    step, count = jnp.arange(width, dtype=jnp.int32), count[:, None]
    load = start[:, None] + jnp.minimum(step, count - 1)
    return info.MaskInfo(load[None], None, jnp.where(step < count, 2, 0)[None], None, None)


@functools.cache
def _within(distance: int):
    """Test whether a key is within a distance; cached, because jax compiles per object."""
    return lambda query, key: abs(query - key) <= distance

"""MaxSim by this library's TPU kernels; `tpu_layout` and `tpu_kernels` say how they work.

This module divides the arguments into blocks of documents and tiles of query tokens, and defines
the derivative. Nothing is stored for the backward pass. First-order reverse differentiation only.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from modernbert_jax.platform import interpreted

from . import tpu_kernels, tpu_layout
from .choice import Call
from .tpu_layout import LANES, Blocks

TILE = 512
"""Query tokens of a tile; fewer for fewer tokens."""

BLOCK = 4096
"""Document tokens of a block, at most, where rows are shorter."""

PIECE = 2**23
"""Numbers in the query tokens that are compared at a time: their gradients stay in vector memory,
32 MiB as float32. More are compared piece by piece."""

MEMORY = 60 * 2**20
"""Vector memory that the kernels may use. v5e and later have 64 MiB or more."""


def refuses(call: Call) -> str | None:
    """The reason why a call is not supported, or None."""
    if call.platform == "gpu":
        return "it is for TPU"
    if call.device_kind in ("TPU v2", "TPU v3", "TPU v4"):
        return f"{call.device_kind} has too little vector memory"
    if call.dtype not in ("bfloat16", "float32"):
        return f"it computes in bfloat16 or float32, not {call.dtype}"
    if call.width % 8 or call.width > 256:
        return f"vectors have {call.width} dimensions; a multiple of 8 up to 256 is needed"
    if call.paired:
        return "it compares all queries with all documents, not pairs"
    tokens = min(call.query_tokens, PIECE // max(call.width, LANES))
    shape = _blocks(call.rows, call.length, call.texts)
    width, tile = call.width, min(TILE, tpu_layout.up(tokens, LANES))
    queries = tpu_layout.up(call.queries, LANES)
    if tpu_kernels.vmem_bytes(tokens, width, call.dtype, shape, tile, queries) > MEMORY:
        return f"rows of {call.length} tokens and {call.texts} texts do not fit in vector memory"
    return None


class _Static(NamedTuple):
    shape: Blocks
    queries: int
    interpret: bool


@functools.partial(jax.jit, static_argnums=(4, 5))
def scores(
    q: jax.Array, places: jax.Array, d: jax.Array, segment_ids: jax.Array, queries: int, texts: int
) -> jax.Array:
    """MaxSim of all documents with all queries, [rows, S, queries]; see `scores`."""
    rows, length, width = d.shape
    if not len(q) or not rows:
        return jnp.zeros((rows, texts, queries), jnp.float32)
    shape = _blocks(rows, length, texts)
    slots = tpu_layout.slots_of(segment_ids, texts, shape, tpu_kernels.CHUNK)
    d = d.reshape(-1, shape.rows * length, width)
    d = jnp.pad(d, ((0, 0), (0, shape.length - d.shape[1]), (0, 0)))
    static = _Static(shape, tpu_layout.up(queries, LANES), interpreted())
    most = max(PIECE // max(width, LANES) // TILE, 1) * TILE
    tile = min(TILE, tpu_layout.up(len(q), LANES))
    total = jnp.zeros((len(d), shape.places, static.queries), jnp.float32)
    for at in range(0, len(q), most):
        part, place = q[at : at + most], places[at : at + most]
        tail = -len(part) % tile
        part = jnp.pad(part, ((0, tail), (0, 0))).reshape(-1, tile, width)
        place = jnp.pad(place, (0, tail), constant_values=-1).reshape(-1, tile)
        windows = tpu_layout.windows(place)
        total += _scores(static, part, d, (place[:, None], windows, slots))
    total = total[:, : shape.rows * texts, :queries].reshape(rows, texts, queries)
    there = (segment_ids[:, None] == jnp.arange(1, texts + 1)[:, None]).any(-1)
    return jnp.where(there[..., None], total, 0)


def _blocks(rows: int, length: int, texts: int) -> Blocks:
    return tpu_layout.blocks(rows, length, texts, BLOCK, tpu_kernels.CHUNK)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(static, q, d, layout):
    places, windows, slots = layout
    return tpu_kernels.forward(
        q, places, windows, d, slots, static.shape, static.queries, static.interpret
    )


def _forward(static, q, d, layout):
    return _scores(static, q, d, layout), (q, d, layout)


def _backward(static, residuals, gradient):
    q, d, (places, windows, slots) = residuals
    dq, dd = tpu_kernels.backward(
        q, places, windows, d, slots, gradient, static.shape, static.interpret
    )
    return dq, dd, None


_scores.defvjp(_forward, _backward)

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
    tokens = min(call.query_tokens, PIECE // max(call.width, LANES))
    shape = _blocks(call.rows, call.length, call.texts)
    width, tile = call.width, min(TILE, tpu_layout.up(tokens, LANES))
    if call.paired:
        tile, queries = LANES, LANES
    else:
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
    own = jnp.zeros((len(d), texts, 0), jnp.int32)
    return _all(q, places, d, segment_ids, own, queries)[..., :queries]


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
    """MaxSim of each document with its own query, [rows, S]; see `scores`.

    A block of documents visits the tiles from its first query's to its last one's, so it is fast
    where queries have the order of the documents.
    """
    return _all(q, places, d, segment_ids, own[..., None], queries).sum(-1)


def _all(q, places, d, segment_ids, own, queries):
    """Sums [rows, S, ...], which the kernels compute piece by piece of the query tokens.

    Args:
        own: place of each document's query, [rows, S, 1], or [rows, S, 0] for all queries.
    """
    rows, length, width = d.shape
    texts, paired = own.shape[1], bool(own.shape[2])
    static = _Static(_blocks(rows, length, texts), tpu_layout.up(queries, LANES), interpreted())
    shape = static.shape
    tile = LANES if paired else min(TILE, tpu_layout.up(len(q), LANES))
    results = tile if paired else static.queries
    if not len(q) or not rows:
        return jnp.zeros((rows, texts, results), jnp.float32)
    slots = tpu_layout.slots_of(segment_ids, texts, shape, tpu_kernels.CHUNK)
    d = d.reshape(-1, shape.rows * length, width)
    d = jnp.pad(d, ((0, 0), (0, shape.length - d.shape[1]), (0, 0)))
    own = own.reshape(len(d), shape.rows * texts, -1)
    own = jnp.pad(own, ((0, 0), (0, shape.places - own.shape[1]), (0, 0)), constant_values=-1)
    # -1 is also the place of tokens that do not count.
    own = jnp.where(own < 0, -2, own) if paired else None
    most = max(PIECE // max(width, LANES) // TILE, 1) * TILE
    total = jnp.zeros((len(d), shape.places, results), jnp.float32)
    for at in range(0, len(q), most):
        part, place = q[at : at + most], places[at : at + most]
        tail = -len(part) % tile
        part = jnp.pad(part, ((0, tail), (0, 0))).reshape(-1, tile, width)
        place = jnp.pad(place, (0, tail), constant_values=-1).reshape(-1, tile)
        if own is None:
            spans = tpu_layout.windows(place)
        else:
            spans = tpu_layout.visits(place, own[..., 0], queries)
        total += _scores(static, part, d, (place[:, None], spans, slots, own))
    total = total[:, : shape.rows * texts].reshape(rows, texts, results)
    there = (segment_ids[:, None] == jnp.arange(1, texts + 1)[:, None]).any(-1)
    return jnp.where(there[..., None], total, 0)


def _blocks(rows: int, length: int, texts: int) -> Blocks:
    return tpu_layout.blocks(rows, length, texts, BLOCK, tpu_kernels.CHUNK)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(static, q, d, layout):
    places, spans, slots, own = layout
    return tpu_kernels.forward(
        q, places, spans, d, slots, static.shape, static.queries, own, static.interpret
    )


def _forward(static, q, d, layout):
    return _scores(static, q, d, layout), (q, d, layout)


def _backward(static, residuals, gradient):
    q, d, (places, spans, slots, own) = residuals
    if own is not None:
        gradient = gradient[..., :1]  # that of a sum, so all are equal
    dq, dd = tpu_kernels.backward(
        q, places, spans, d, slots, gradient, static.shape, own, static.interpret
    )
    return dq, dd, None


_scores.defvjp(_forward, _backward)

"""MaxSim on GPU in Pallas-Triton; `triton_kernels` says how it works.

The backward pass finds the winning tokens again, of some rows of documents at a time: they are
four bytes for each query token and document. First-order reverse differentiation only.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from modernbert_jax.platform import interpreted

from . import triton_kernels
from .choice import Call
from .numbering import spans
from .triton_kernels import WINDOW

WINNERS = 16 * 2**20
"""Bytes of the winning tokens that are in memory at a time, unless a single row needs more."""

MOST = 16 * WINNERS
"""Bytes of those of a row with which the kernels are not used."""


class Tile(NamedTuple):
    """Query tokens and document tokens of a tile, and how Triton compiles a kernel."""

    q: int
    d: int
    warps: int
    stages: int


class Tiles(NamedTuple):
    """A tile for each kernel."""

    forward: Tile
    winners: Tile
    dq: Tile
    dd: Tile


TILES = {
    2: Tiles(Tile(128, 64, 8, 3), Tile(128, 64, 8, 3), Tile(32, 0, 4, 3), Tile(64, 64, 4, 3)),
    4: Tiles(Tile(16, 16, 4, 1), Tile(16, 16, 4, 1), Tile(32, 0, 4, 2), Tile(32, 32, 4, 2)),
}
"""Tiles by the bytes of a number."""


def refuses(call: Call) -> str | None:
    """The reason why a call is not supported, or None."""
    if call.platform == "tpu" or (call.platform == "gpu" and "NVIDIA" not in call.device_kind):
        return f"it is for NVIDIA GPUs, not {call.device_kind}"
    if call.capability is not None and call.capability < (8, 0):
        return f"it needs compute capability 8.0, and {call.device_kind} is older"
    if call.dtype not in ("bfloat16", "float16", "float32"):
        return f"it computes in 16 or 32 bits, not in {call.dtype}"
    if call.width > 256:
        return f"vectors have {call.width} dimensions; it has tiles for up to 256"
    if call.paired:
        return "it compares all queries with all documents, not pairs"
    if 4 * call.query_tokens * call.texts > MOST:
        return f"the winning tokens of {call.texts} documents of a row take more than {MOST} bytes"
    return None


class _Static(NamedTuple):
    tiles: Tiles
    texts: int
    windows: int
    interpret: bool


@functools.partial(jax.jit, static_argnums=(4, 5))
def scores(
    q: jax.Array, places: jax.Array, d: jax.Array, segment_ids: jax.Array, queries: int, texts: int
) -> jax.Array:
    """MaxSim of all documents with all queries, [rows, S, queries]; see `scores`."""
    rows, length, width = d.shape
    if not len(q) or not rows:
        return jnp.zeros((rows, texts, queries), jnp.float32)
    tiles = TILES[q.dtype.itemsize]
    # A tile has a power of two of dimensions, at least 16, and an array at least a tile of tokens.
    wider = max(16, 1 << (width - 1).bit_length()) - width
    q = jnp.pad(q, ((0, -len(q) % max(t.q for t in tiles)), (0, wider)))
    places = jnp.pad(places, (0, len(q) - len(places)), constant_values=-1)
    longer = max(0, max(t.d for t in tiles) - length)
    d = jnp.pad(d, ((0, 0), (0, longer), (0, wider)))
    ids = jnp.pad(segment_ids, ((0, 0), (0, longer)))
    static = _Static(tiles, texts, -(-queries // WINDOW), interpreted())
    out = _scores(static, q, places, d, ids)
    return out[:, :queries].reshape(rows, texts, queries)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(static, q, places, d, ids):
    """Scores [rows * S, windows * 16]."""
    flat, own, text = _flat(d, ids, static.texts)
    window = jnp.where(places < 0, -1, places // WINDOW) + 1
    begin, end, _ = spans(window[None], static.windows)
    tile = static.tiles.forward
    return _call(
        triton_kernels.maxsim_forward,
        static,
        tile,
        grid=(len(text), static.windows),
        in_specs=[
            *(_whole(x) for x in (q, places, flat, own)),
            pl.BlockSpec((None, 2), lambda i, w: (w, 0)),
            pl.BlockSpec((None, 2), lambda i, w: (i, 0)),
        ],
        out_specs=pl.BlockSpec((None, WINDOW), lambda i, w: (i, w)),
        out_shape=jax.ShapeDtypeStruct((len(text), static.windows * WINDOW), jnp.float32),
    )(q, places, flat, own, jnp.concatenate([begin, end]).T, text)


def _forward(static, q, places, d, ids):
    return _scores(static, q, places, d, ids), (q, places, d, ids)


def _backward(static, residuals, gradient):
    q, places, d, ids = residuals
    most = max(1, WINNERS // (4 * len(q) * static.texts))
    together = max(n for n in range(1, min(most, len(d)) + 1) if len(d) % n == 0)
    groups = len(d) // together

    def group(dq, arrays):
        part, dd = _gradients(static, q, places, *arrays)
        return dq + part, dd

    parts = (x.reshape(groups, -1, *x.shape[1:]) for x in (d, ids, gradient))
    dq, dd = lax.scan(group, jnp.zeros(q.shape, jnp.float32), tuple(parts))
    return dq.astype(q.dtype), None, dd.reshape(d.shape), None


_scores.defvjp(_forward, _backward)


def _gradients(static, q, places, d, ids, gradient):
    """The share of some rows in dq, float32, and their dd."""
    flat, own, text = _flat(d, ids, static.texts)
    tile = static.tiles.winners
    winners = _call(
        triton_kernels.maxsim_winners,
        static,
        tile,
        grid=(len(text), len(q) // tile.q),
        in_specs=[
            pl.BlockSpec((tile.q, q.shape[1]), lambda i, t: (t, 0)),
            _whole(flat),
            _whole(own),
            pl.BlockSpec((None, 2), lambda i, t: (i, 0)),
        ],
        out_specs=pl.BlockSpec((None, tile.q), lambda i, t: (i, t)),
        out_shape=jax.ShapeDtypeStruct((len(text), len(q)), jnp.int32),
    )(q, flat, own, text)
    tile = static.tiles.dq
    by_tile = pl.BlockSpec((tile.q, q.shape[1]), lambda t: (t, 0))
    dq = _call(
        triton_kernels.maxsim_dq,
        static,
        tile,
        grid=(len(q) // tile.q,),
        in_specs=[
            pl.BlockSpec((tile.q,), lambda t: (t,)),
            *(_whole(x) for x in (flat, winners, gradient)),
        ],
        out_specs=by_tile,
        out_shape=jax.ShapeDtypeStruct(q.shape, jnp.float32),
    )(places, flat, winners, gradient)
    tile = static.tiles.dd
    arrays = (q, places, own, winners, gradient, text, jnp.zeros_like(flat))
    dd = _call(
        triton_kernels.maxsim_dd,
        static,
        tile,
        grid=(len(text), -(-d.shape[1] // tile.d)),
        in_specs=[
            *(_whole(x) for x in arrays[:5]),
            pl.BlockSpec((None, 2), lambda i, j: (i, 0)),
            _whole(flat),
        ],
        out_specs=_whole(flat),
        out_shape=jax.ShapeDtypeStruct(flat.shape, flat.dtype),
        input_output_aliases={6: 0},
    )(*arrays)
    return dq, dd.reshape(d.shape)


def _flat(d, ids, texts):
    """Tokens of all rows, the place of each one's text, and start and stop of each text."""
    start, stop, _ = spans(ids, texts)
    first = jnp.arange(len(ids), dtype=jnp.int32)[:, None]
    counts = (ids > 0) & (ids <= texts)
    own = jnp.where(counts, first * texts + ids.astype(jnp.int32) - 1, -1)
    text = jnp.stack([start, stop], -1) + first[..., None] * ids.shape[1]
    return d.reshape(-1, d.shape[2]), own.reshape(-1), text.reshape(-1, 2)


def _whole(x):
    return pl.BlockSpec(x.shape, lambda *_: (0,) * x.ndim)


def _call(kernel, static, tile, **specs):
    return pl.pallas_call(
        functools.partial(kernel, tile=tile),
        compiler_params=plgpu.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
        interpret=static.interpret,
        name=kernel.__name__,
        **specs,
    )

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

PAIRED = {
    2: Tiles(Tile(32, 64, 4, 3), Tile(32, 64, 4, 3), Tile(32, 0, 4, 3), Tile(32, 64, 4, 3)),
    4: Tiles(Tile(16, 16, 4, 1), Tile(16, 16, 4, 1), Tile(32, 0, 4, 2), Tile(32, 32, 4, 2)),
}
"""The same where each document has a query of its own: tiles of about the tokens of a query."""


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
    if not call.paired and 4 * call.query_tokens * call.texts > MOST:
        return f"the winning tokens of {call.texts} documents of a row take more than {MOST} bytes"
    return None


class _Static(NamedTuple):
    tiles: Tiles
    texts: int
    queries: int
    longest: int
    """Query tokens with which a document is compared, at most."""
    paired: bool
    interpret: bool

    @property
    def windows(self) -> int:
        """Programs of the forward kernel for each document."""
        return 1 if self.paired else pl.cdiv(self.queries, WINDOW)


@functools.partial(jax.jit, static_argnums=(4, 5))
def scores(
    q: jax.Array, places: jax.Array, d: jax.Array, segment_ids: jax.Array, queries: int, texts: int
) -> jax.Array:
    """MaxSim of all documents with all queries, [rows, S, queries]; see `scores`."""
    own = jnp.zeros((len(d), texts, 0), jnp.int32)
    return _all(TILES, q, places, d, segment_ids, own, queries, len(q))[..., :queries]


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
    """MaxSim of each document with its own query, [rows, S]; see `scores`."""
    own = own[..., None]
    return _all(PAIRED, q, places, d, segment_ids, own, queries, longest)[..., 0]


def _all(tiles, q, places, d, segment_ids, own, queries, longest):
    """Scores [rows, S, ...] with all queries, or of which the first is that with the own one.

    Args:
        own: place of each document's query, [rows, S, 1], or [rows, S, 0] for all queries.
    """
    (rows, length, width), texts, paired = d.shape, own.shape[1], bool(own.shape[2])
    if not len(q) or not rows:
        return jnp.zeros((rows, texts, max(queries, 1)), jnp.float32)
    tiles = tiles[q.dtype.itemsize]
    # A tile has a power of two of dimensions, at least 16, and an array at least a tile of tokens.
    wider = max(16, 1 << (width - 1).bit_length()) - width
    tile = max(t.q for t in tiles)
    # The last tile of a query begins anywhere.
    q = jnp.pad(q, ((0, -len(q) % tile + (tile if paired else 0)), (0, wider)))
    places = jnp.pad(places, (0, len(q) - len(places)), constant_values=-1)
    longest += -longest % tile
    longer = max(0, max(t.d for t in tiles) - length)
    d = jnp.pad(d, ((0, 0), (0, longer), (0, wider)))
    ids = jnp.pad(segment_ids, ((0, 0), (0, longer)))
    static = _Static(tiles, texts, queries, longest, paired, interpreted())
    return _scores(static, q, places, d, (ids, own)).reshape(rows, texts, -1)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scores(static, q, places, d, layout):
    """Scores [rows * S, windows * 16]."""
    flat, own, text = _flat(d, layout[0], static.texts)
    if static.paired:
        query = _own_queries(static, places, layout[1])
    else:
        window = jnp.where(places < 0, -1, places // WINDOW)
        begin, end, _ = (x[0] for x in spans(window[None] + 1, static.windows))
        query = jnp.stack([begin, end, jnp.arange(0, len(begin) * WINDOW, WINDOW)], -1)
    tile = static.tiles.forward
    return _call(
        triton_kernels.maxsim_forward,
        static,
        tile,
        grid=(len(text), static.windows),
        in_specs=[
            *(_whole(x) for x in (q, places, flat, own)),
            pl.BlockSpec((None, 3), lambda i, w: (i if static.paired else w, 0)),
            pl.BlockSpec((None, 2), lambda i, w: (i, 0)),
        ],
        out_specs=pl.BlockSpec((None, WINDOW), lambda i, w: (i, w)),
        out_shape=jax.ShapeDtypeStruct((len(text), static.windows * WINDOW), jnp.float32),
    )(q, places, flat, own, query.astype(jnp.int32), text)


def _forward(static, q, places, d, layout):
    return _scores(static, q, places, d, layout), (q, places, d, layout)


def _backward(static, residuals, gradient):
    q, places, d, layout = residuals
    most = max(1, WINNERS // (4 * static.longest * static.texts))
    together = max(n for n in range(1, min(most, len(d)) + 1) if len(d) % n == 0)
    groups = len(d) // together
    if static.paired:
        gradient = gradient[:, :1]

    def group(dq, arrays):
        part, dd = _gradients(static, q, places, *arrays)
        return dq + part, dd

    arrays = (d, layout, gradient)
    parts = jax.tree.map(lambda x: x.reshape(groups, len(x) // groups, *x.shape[1:]), arrays)
    dq, dd = lax.scan(group, jnp.zeros(q.shape, jnp.float32), parts)
    return dq.astype(q.dtype), None, dd.reshape(d.shape), None


_scores.defvjp(_forward, _backward)


def _gradients(static, q, places, d, layout, gradient):
    """The share of some rows in dq, float32, and their dd."""
    flat, own, text = _flat(d, layout[0], static.texts)
    if static.paired:
        query = _own_queries(static, places, layout[1])
    else:
        query = jnp.broadcast_to(jnp.array([0, len(q), 0], jnp.int32), (len(text), 3))
    by_text = (
        pl.BlockSpec((None, 3), lambda i, _: (i, 0)),
        pl.BlockSpec((None, 2), lambda i, _: (i, 0)),
    )
    tile = static.tiles.winners
    winners = _call(
        triton_kernels.maxsim_winners,
        static,
        tile,
        grid=(len(text), static.longest // tile.q),
        in_specs=[_whole(q), _whole(flat), _whole(own), *by_text],
        out_specs=pl.BlockSpec((None, tile.q), lambda i, t: (i, t)),
        out_shape=jax.ShapeDtypeStruct((len(text), static.longest), jnp.int32),
    )(q, flat, own, query, text)
    tile = static.tiles.dq
    dq_arrays = [places, flat, winners, gradient]
    dq_specs = [pl.BlockSpec((tile.q,), lambda t: (t,)), *(_whole(x) for x in dq_arrays[1:])]
    if static.paired:
        numbers, visits = _by_query(places.reshape(-1, tile.q), query[:, 2])
        dq_arrays += [numbers, visits, query]
        dq_specs += [_whole(numbers), pl.BlockSpec((None, 2), lambda t: (t, 0)), _whole(query)]
    dq = _call(
        triton_kernels.maxsim_dq,
        static,
        tile,
        grid=(len(q) // tile.q,),
        in_specs=dq_specs,
        out_specs=pl.BlockSpec((tile.q, q.shape[1]), lambda t: (t, 0)),
        out_shape=jax.ShapeDtypeStruct(q.shape, jnp.float32),
    )(*dq_arrays)
    tile = static.tiles.dd
    arrays = (q, places, own, winners, gradient, query, text, jnp.zeros_like(flat))
    dd = _call(
        triton_kernels.maxsim_dd,
        static,
        tile,
        grid=(len(text), -(-d.shape[1] // tile.d)),
        in_specs=[*(_whole(x) for x in arrays[:5]), *by_text, _whole(flat)],
        out_specs=_whole(flat),
        out_shape=jax.ShapeDtypeStruct(flat.shape, flat.dtype),
        input_output_aliases={7: 0},
    )(*arrays)
    return dq, dd.reshape(d.shape)


def _own_queries(static, places, own):
    """First token of each document's query, the one after its last, and its place, [documents, 3];
    no tokens, and -2, for documents without a query."""
    own = own.reshape(-1)
    begin, end, _ = (x[0] for x in spans(places[None] + 1, static.queries))
    inside = jnp.where(own < 0, static.queries, own)
    begin, end = (x.at[inside].get(mode="fill", fill_value=0) for x in (begin, end))
    return jnp.stack([jnp.minimum(begin, end), end, jnp.where(own < 0, -2, own)], -1)


def _by_query(places, own):
    """Documents sorted by query, and the first and the one after the last of each tile's queries.

    Args:
        places: [tiles, tokens], -1 for tokens that do not count.
        own: place of each document's query, negative for none.
    """
    numbers = jnp.argsort(own).astype(jnp.int32)
    own = own[numbers]
    first = jnp.where(places < 0, jnp.iinfo(jnp.int32).max, places).min(1)
    start = (own[None] < first[:, None]).sum(1, dtype=jnp.int32)
    stop = (own[None] <= places.max(1)[:, None]).sum(1, dtype=jnp.int32)
    return numbers, jnp.stack([jnp.minimum(start, stop), stop], -1)


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

"""MaxSim on TPU: the two kernels, over a grid of (block of documents, tile of query tokens).

A block's tokens are moved to slots (`tpu_layout`) when its first tile is computed. Then chunks of
slots are multiplied with the tile of query tokens, and only maxima over granules remain:

    products [chunk, tile]     granule 0 of A        m_A = s_0
                               granule 1 of A        m_A = max(m_A, s_1)
                               granule 2 of B        m_B = s_2        ...

Each m is [8, tile], its rows are reduced at the end. Products are thus read where the matrix unit
leaves them. Sums over a query's tokens are products with a matrix of zeros and ones, in windows of
128 queries; the maxima are split into three bfloat16 parts, so that they are exact.

    forward     out[places, window] += maxima [places, tile] . own [window, tile]'
    backward    finds the slot of each maximum instead, as the forward pass does; then by granules
                p = (slot == winner) * gradient        dd += p q        dq' += d' p

Where each document has one query, its *owner*, tiles without owners of a block are skipped, and
the maxima of other queries' tokens are replaced by zeros. `spans` is then of tiles for each block,
int32 [2, B], and else of windows for each tile, [2, tiles].
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from modernbert_jax.platform import precision

from .tpu_layout import GRANULE, LANES, Blocks, Slots

CHUNK = 256
"""Slots whose products with a tile are computed together."""

NN, NT, TN = (((1,), (0,)), ((), ())), (((1,), (1,)), ((), ())), (((0,), (0,)), ((), ()))
"""Dimensions that `_matmul` contracts for a b, a b' and a' b."""


def forward(q, places, spans, d, slots: Slots, shape: Blocks, queries: int, owners, interpret):
    """Sums of maxima, float32 [B, places, queries]; without meaning where a place has no text.

    With owners [B, places, tile]: the maxima of those tokens of the tiles that are the owner's.

    Args:
        q: [tiles, tile, E].
        places: int32 [tiles, 1, tile].
        spans: of windows or tiles, int32 [2, ...]; see above.
        d: [B, length, E].
        slots: of `d`.
        shape: of the blocks.
        queries: number of places of queries, a multiple of 128.
        owners: place of the query of each document, int32 [B, places, 1], or None.
        interpret: as of `pallas_call`.
    """
    at = _Specs(q, d, slots, owners)
    results = queries if owners is None else q.shape[1]
    return pl.pallas_call(
        functools.partial(_forward_kernel, owners is not None),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(len(d), len(q)),
            in_specs=[*at.inputs],
            out_specs=at.whole(shape.places, results),
            scratch_shapes=[
                pltpu.VMEM((shape.slots, d.shape[2]), d.dtype),
                pltpu.VMEM(((shape.places + 1) * GRANULE, q.shape[1]), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct((len(d), shape.places, results), jnp.float32),
        compiler_params=_parameters(q, d, shape, queries),
        name="maxsim_forward",
        interpret=interpret,
    )(spans, slots.chunks, *at.arrays(slots, places, q, d, owners))


def backward(q, places, spans, d, slots: Slots, gradient, shape: Blocks, owners, interpret):
    """Gradients of q [tiles, tile, E] and of d [B, length, E]; arguments as `forward`.

    Args:
        gradient: of the sums, float32 [B, places, queries], or [B, places, 1] with owners.
    """
    at = _Specs(q, d, slots, owners)
    tile, width, queries = q.shape[1], q.shape[2], gradient.shape[2]
    rows = (shape.places + 1) * GRANULE
    last = len(d) - 1
    return pl.pallas_call(
        functools.partial(_backward_kernel, owners is not None),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(len(d), len(q)),
            in_specs=[*at.inputs, at.whole(shape.places, queries)],
            out_specs=[
                # Written when all blocks have been added up.
                pl.BlockSpec((1, tile, width), lambda b, t, *_: (jnp.where(b == last, t, 0), 0, 0)),
                pl.BlockSpec((1, shape.length, width), lambda b, t, *_: (b, 0, 0)),
            ],
            scratch_shapes=[
                pltpu.VMEM((shape.slots, width), d.dtype),
                pltpu.VMEM((width, shape.slots), d.dtype),
                pltpu.VMEM((rows, tile), jnp.float32),
                pltpu.VMEM((rows, tile), jnp.int32),
                pltpu.VMEM((shape.places + GRANULE, tile), jnp.int32),
                pltpu.VMEM((shape.places + GRANULE, tile), jnp.float32),
                pltpu.VMEM((len(q), width, tile), jnp.float32),
                pltpu.VMEM((shape.slots, width), jnp.float32),
                pltpu.VMEM((shape.length, width), jnp.float32),
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), jax.ShapeDtypeStruct(d.shape, d.dtype)],
        compiler_params=_parameters(q, d, shape, queries),
        name="maxsim_backward",
        interpret=interpret,
    )(spans, slots.chunks, *at.arrays(slots, places, q, d, owners), gradient)


def vmem_bytes(query_tokens: int, width: int, dtype, shape: Blocks, tile: int, queries: int) -> int:
    """Vector memory of the backward kernel, which takes more."""
    width, size = max(width, LANES), jnp.dtype(dtype).itemsize
    tokens = width * (4 * size * shape.length + 4 * shape.length)
    slots = width * (2 * size + 4) * shape.slots
    texts = 4 * tile * (2 * GRANULE + 2) * (shape.places + GRANULE)
    sums = 4 * shape.places * queries * 2
    return tokens + slots + texts + sums + 4 * width * query_tokens + 16 * CHUNK * tile


class _Specs:
    """Blocks of the arguments of both kernels."""

    def __init__(self, q, d, slots: Slots, owners):
        def by_block(x, **where):
            return pl.BlockSpec((1, *x.shape[1:]), lambda b, t, *_: (b, 0, 0), **where)

        def by_tile(*shape):
            def index(b, t, spans, chunks):
                if owners is not None:  # skipped tiles are not loaded
                    t = jnp.clip(t, spans[0, b], jnp.maximum(spans[1, b] - 1, spans[0, b]))
                return t, 0, 0

            return pl.BlockSpec((1, *shape), index)

        self.inputs = (
            by_block(slots.granules, memory_space=pltpu.SMEM),
            by_block(slots.sources, memory_space=pltpu.SMEM),
            by_block(slots.first),
            by_block(slots.end),
            by_tile(1, q.shape[1]),
            by_tile(*q.shape[1:]),
            by_block(d),
            *(() if owners is None else (by_block(owners),)),
        )

    @staticmethod
    def arrays(slots: Slots, places, q, d, owners):
        """The arguments of the blocks."""
        own = () if owners is None else (owners,)
        return (slots.granules, slots.sources, slots.first, slots.end, places, q, d, *own)

    @staticmethod
    def whole(places: int, queries: int) -> pl.BlockSpec:
        """All queries of a block's texts."""
        return pl.BlockSpec((1, places, queries), lambda b, t, *_: (b, 0, 0))


def _parameters(q, d, shape: Blocks, queries: int):
    tiles, tile, width = q.shape
    vmem = vmem_bytes(tiles * tile, width, d.dtype, shape, tile, queries)
    return pltpu.CompilerParams(
        dimension_semantics=("arbitrary", "arbitrary"),
        vmem_limit_bytes=max(16 * 2**20, vmem + 8 * 2**20),
    )


def _forward_kernel(paired, spans, chunks, granules, sources, first, end, places, q, d, *others):
    *owner, out, moved, maxima = others
    b, t = pl.program_id(0), pl.program_id(1)

    @pl.when(t == 0)
    def _():
        _move(chunks[b], sources, first, end, d, moved)
        out[...] = jnp.zeros_like(out)

    def granule(n, rows, place, s, best):
        best = jnp.maximum(best, s)
        maxima[rows, :] = best
        return best

    def tile():
        _walk(chunks[b], granules, moved, q, granule, jnp.full((GRANULE, q.shape[1]), -jnp.inf))
        best = maxima[...].reshape(-1, GRANULE, q.shape[1]).max(1)[: out.shape[1]]
        if paired:
            out[0] += jnp.where(places[0] == owner[0][0], best, 0.0)
            return
        parts = jnp.concatenate(_exact_parts(best))

        def window(w, _):
            sums = _matmul(parts, _own(places, w, jnp.bfloat16), NT)
            at = pl.ds(pl.multiple_of(w * LANES, LANES), LANES)
            out[0, :, at] += sums.reshape(3, -1, LANES).sum(0)
            return 0

        lax.fori_loop(spans[0, t], spans[1, t], window, 0)

    _if_visited(paired, spans, tile)


def _backward_kernel(paired, spans, chunks, granules, sources, first, end, places, q, d, *others):
    *owner, gradient, dq, dd = others[:-9]
    moved, moved_t, maxima, numbers, winner, weight, dq_t, d_moved, d_tokens = others[-9:]
    b, t = pl.program_id(0), pl.program_id(1)
    texts, tile = gradient.shape[1], q.shape[1]
    row = lax.broadcasted_iota(jnp.int32, (GRANULE, tile), 0)

    @pl.when(t == 0)
    def _():
        _move(chunks[b], sources, first, end, d, moved)
        moved_t[...] = moved[...].T
        d_moved[...] = jnp.zeros_like(d_moved)

    @pl.when(b == 0)
    def _():
        dq_t[t] = jnp.zeros_like(dq_t[t])

    def granule(n, rows, place, s, carry):
        best, number = carry
        better = s > best
        best, number = jnp.where(better, s, best), jnp.where(better, n, number)
        maxima[rows, :], numbers[rows, :] = best, number
        return best, number

    def window(w, _):
        at = pl.ds(pl.multiple_of(w * LANES, LANES), LANES)
        weight[:texts] += _matmul(gradient[0, :, at].astype(q.dtype), _own(places, w, q.dtype), NN)
        return 0

    def chunk(c, _):
        parts = []
        for g in range(CHUNK // GRANULE):
            n = c * (CHUNK // GRANULE) + g
            here = pl.ds(granules[0, 0, n], 1)
            parts.append(jnp.where(winner[here] == n * GRANULE + row, weight[here], 0.0))
        p = jnp.concatenate(parts).astype(q.dtype)
        at = pl.ds(pl.multiple_of(c * CHUNK, CHUNK), CHUNK)
        d_moved[at] += _matmul(p, q[0], NN)
        dq_t[t] += _matmul(moved_t[:, at], p, NN)
        return 0

    def visit():
        lowest = jnp.full((GRANULE, tile), -jnp.inf), jnp.zeros((GRANULE, tile), jnp.int32)
        _walk(chunks[b], granules, moved, q, granule, lowest)
        best = maxima[...].reshape(-1, GRANULE, tile)[:texts]
        slot = numbers[...].reshape(best.shape[0] + 1, GRANULE, tile)[:texts] * GRANULE + row
        slot = jnp.where(best == best.max(1, keepdims=True), slot, jnp.iinfo(jnp.int32).max)
        winner[:texts], weight[...] = slot.min(1), jnp.zeros_like(weight)
        if paired:
            weight[:texts] = jnp.where(places[0] == owner[0][0], gradient[0], 0.0)
        else:
            lax.fori_loop(spans[0, t], spans[1, t], window, 0)
        lax.fori_loop(0, chunks[b], chunk, 0)

    _if_visited(paired, spans, visit)

    @pl.when(b == pl.num_programs(0) - 1)
    def _():
        dq[0] = dq_t[t].T.astype(dq.dtype)

    @pl.when(t == pl.num_programs(1) - 1)
    def _():
        d_tokens[...] = jnp.zeros_like(d_tokens)

        def back(c, j, matrix):
            at = pl.ds(pl.multiple_of(j * LANES, LANES), LANES)
            source = d_moved[pl.ds(pl.multiple_of(c * LANES, LANES), LANES)].astype(dd.dtype)
            d_tokens[at] += _matmul(matrix.astype(dd.dtype), source, TN)

        _each_source(chunks[b], sources, first, end, back)
        dd[0] = d_tokens[...].astype(dd.dtype)


def _if_visited(paired, spans, function):
    """Call a function where the tile is one that the block visits."""
    b, t = pl.program_id(0), pl.program_id(1)
    if paired:
        pl.when((t >= spans[0, b]) & (t < spans[1, b]))(function)
    else:
        function()


def _walk(chunks, granules, moved, q, granule, lowest):
    """Call `granule(number, its rows, place, products, carry)` for all granules of a block.

    The carry is reset to `lowest` with each new text.
    """

    def chunk(c, carry):
        before, carry = carry[0], carry[1:]
        at = pl.ds(pl.multiple_of(c * CHUNK, CHUNK), CHUNK)
        products = _matmul(moved[at], q[0], NT)
        best, *others = carry
        for g in range(CHUNK // GRANULE):
            n = c * (CHUNK // GRANULE) + g
            place = granules[0, 0, n]
            # Adding minus infinity is cheaper than selecting by a scalar.
            best = best + jnp.where(place == before, 0.0, -jnp.inf).astype(jnp.float32)
            rows = pl.ds(pl.multiple_of(place * GRANULE, GRANULE), GRANULE)
            s = products[g * GRANULE : (g + 1) * GRANULE]
            state = granule(n, rows, place, s, (best, *others) if others else best)
            best, *others = state if others else (state,)
            before = place
        return (before, best, *others)

    start = lowest if isinstance(lowest, tuple) else (lowest,)
    lax.fori_loop(0, chunks, chunk, (jnp.int32(-1), *start))


def _move(chunks, sources, first, end, d, moved):
    """Move the tokens of a block to their slots."""
    moved[...] = jnp.zeros_like(moved)

    def move(c, j, matrix):
        tokens = d[0, pl.ds(pl.multiple_of(j * LANES, LANES), LANES)]
        at = pl.ds(pl.multiple_of(c * LANES, LANES), LANES)
        moved[at] += _matmul(matrix.astype(d.dtype), tokens, NN).astype(d.dtype)

    _each_source(chunks, sources, first, end, move)


def _each_source(chunks, sources, first, end, function):
    """`function(c, j, matrix)`: for 128 slots and 128 tokens, which of them belong together."""
    slot = lax.broadcasted_iota(jnp.int32, (LANES, LANES), 0)

    def slots(c, _):
        def tokens(j, _):
            here, j = slot + c * LANES, pl.ds(j, 1)
            matrix = (here >= first[0, j]) & (here < end[0, j])
            function(c, j.start, jnp.where(matrix, 1.0, 0.0))
            return 0

        return lax.fori_loop(sources[0, 0, c], sources[0, 1, c], tokens, 0)

    lax.fori_loop(0, chunks * (CHUNK // LANES), slots, 0)


def _own(places, w, dtype):
    """Which query of window `w` each token of the tile belongs to: zeros and ones [128, tile]."""
    query = w * LANES + lax.broadcasted_iota(jnp.int32, (LANES, places.shape[2]), 0)
    return jnp.where(places[0] == query, 1.0, 0.0).astype(dtype)


def _exact_parts(x):
    """Three bfloat16 arrays whose sum is x, a float32 array."""
    high = x.astype(jnp.bfloat16)
    rest = x - high.astype(jnp.float32)
    middle = rest.astype(jnp.bfloat16)
    return high, middle, (rest - middle.astype(jnp.float32)).astype(jnp.bfloat16)


def _matmul(a, b, dimensions):
    return lax.dot_general(
        a, b, dimensions, precision=precision(a.dtype), preferred_element_type=jnp.float32
    )

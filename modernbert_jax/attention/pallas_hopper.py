"""Attention over key ranges on Hopper GPUs, in Pallas for Mosaic GPU, for sliding and full layers.

This module calls the three kernels of `hopper_kernels`, whose parts are in `hopper_pipeline`. They
use what only this generation has: asynchronous matrix products of warpgroups, copies by the tensor
memory accelerator, and registers that warpgroups hand over.
"""

import functools
from typing import NamedTuple

import jax
from jax.experimental.pallas import mosaic_gpu as plgpu

from modernbert_jax.attention import gpu_flash
from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.gpu_flash import like, lse_of
from modernbert_jax.attention.gpu_tiles import Tiles
from modernbert_jax.attention.hopper_kernels import attention_dkv, attention_dq, attention_fwd
from modernbert_jax.attention.hopper_pipeline import AXES, WARPGROUP, Ring
from modernbert_jax.attention.hopper_tiles import OPTIONS, OWN, SWEEP, Tile, tiles_for
from modernbert_jax.attention.ranges import KeyRanges

__all__ = ["OPTIONS", "SWEEP", "attention", "refuses"]

WIDTH = 64
"""Width of heads: in 16 bits it is the 128 bytes of a row as shared memory is laid out here."""

_NAMES = ("H100", "H200", "H800", "H20", "GH200")
"""Hopper GPUs, for programs that are compiled where none is attached."""


def refuses(call: Call) -> str | None:
    """The reason why a call is not supported, or None."""
    if call.capability is None:
        hopper = call.platform == "gpu" and any(name in call.device_kind for name in _NAMES)
    else:
        hopper = call.capability == (9, 0)
    if not hopper:
        return f"it is for Hopper GPUs, not {call.device_kind}"
    if call.dtype not in ("bfloat16", "float16"):
        return f"it computes in 16 bits, not in {call.dtype}"
    if call.head_dim != WIDTH:
        return f"heads of {call.head_dim}; it has tiles for {WIDTH}"
    return None


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    ranges: KeyRanges,
    *,
    window: int | None,
    **options: int,
) -> jax.Array:
    """Attention [B, T, N, H] over the ranges.

    Args:
        q: [B, T, N, H].
        k, v: [B, S, N, H].
        options: by the names of `OPTIONS`, in place of the default tiles.

    Raises:
        UserError: a number that the kernels do not support.
    """
    return gpu_flash.attend(_Hopper(tiles_for(options)), q, k, v, ranges)


class _Hopper(NamedTuple):
    """The kernels, with their tiles."""

    tiles: Tiles[Tile]

    @property
    def multiple(self) -> int:
        return max(size for tile in self.tiles for size in (tile.own, tile.step))

    def seen(self, ranges: KeyRanges):
        sides = (ranges, ranges.transposed, ranges)
        return tuple(map(self._seen, sides, self.tiles))

    def _seen(self, ranges: KeyRanges, tile: Tile) -> tuple[jax.Array, ...]:
        """Ranges of tokens, and bounds for warpgroups and for blocks of them."""
        own = gpu_flash.seen(ranges, OWN, tile.step, self.multiple)
        blocks = own.first.shape[1] // tile.own
        return *own, gpu_flash.bounds(ranges, tile.own, tile.step, blocks)

    def fwd(self, q, k, v, seen):
        out = [like(q), lse_of(q)]
        call = _call(attention_fwd, self.tiles.fwd, own=[q], passing=[k, v], out=out)
        return call(q, k, v, *seen)

    def dkv(self, q, k, v, do, lse, delta, seen):
        passing, out = [q, do, lse, delta], [like(k), like(v)]
        call = _call(attention_dkv, self.tiles.dkv, own=[k, v], passing=passing, out=out)
        return call(q, k, v, do, lse, delta, *seen)

    def dq(self, q, k, v, do, lse, delta, seen):
        call = _call(attention_dq, self.tiles.dq, own=[q, do], passing=[k, v], out=[like(q)])
        return call(q, k, v, do, lse, delta, *seen)[0]


def _call(kernel, tile: Tile, *, own, passing, out):
    """A kernel for blocks of tokens.

    Args:
        own: arrays [B, T, N, H] of which a warpgroup keeps its own tokens.
        passing: arrays that pass through the ring, [B, T, N, H] or [B, N, T].
        out: shapes of the results.
    """
    rows, length, heads, width = own[0].shape
    kept = [plgpu.SMEM((tile.warpgroups, OWN, width), x.dtype) for x in own]
    tiles = [((tile.step, *x.shape[3:]), x.dtype) for x in passing]
    return plgpu.kernel(
        functools.update_wrapper(functools.partial(kernel, tile=tile), kernel),
        out_type=out,
        grid=(rows, heads, length // tile.own),
        grid_names=AXES,
        num_threads=tile.warpgroups + 1,
        thread_name=WARPGROUP,
        scratch_types=[
            kept,
            plgpu.Barrier(num_arrivals=len(own), num_barriers=tile.warpgroups),
            Ring.types(tile, *tiles),
        ],
        compiler_params=plgpu.CompilerParams(
            approx_math=True, lowering_semantics=plgpu.LoweringSemantics.Warpgroup
        ),
    )

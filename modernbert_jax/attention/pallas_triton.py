"""Attention over key ranges on GPU, in Pallas-Triton, for sliding and full layers.

This module calls the three kernels of `triton_kernels`: it divides the work among programs, each of
which computes one tile of tokens of one head.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from modernbert_jax.attention import gpu_flash
from modernbert_jax.attention.choice import Call
from modernbert_jax.attention.gpu_flash import Seen, like, lse_of
from modernbert_jax.attention.gpu_tiles import Tiles
from modernbert_jax.attention.ranges import KeyRanges
from modernbert_jax.attention.triton_kernels import attention_dkv, attention_dq, attention_fwd
from modernbert_jax.attention.triton_tiles import OPTIONS, SWEEP, Tile, tiles_for, widths
from modernbert_jax.platform import interpreted

__all__ = ["OPTIONS", "SWEEP", "attention", "refuses"]


def refuses(call: Call) -> str | None:
    """The reason why a call is not supported, or None."""
    if call.platform == "tpu" or (call.platform == "gpu" and "NVIDIA" not in call.device_kind):
        return f"it is for NVIDIA GPUs, not {call.device_kind}"
    if call.capability is not None and call.capability < (8, 0):
        return f"it needs compute capability 8.0, and {call.device_kind} is older"
    if call.dtype not in ("bfloat16", "float16", "float32"):
        return f"it computes in 16 or 32 bits, not in {call.dtype}"
    if call.head_dim not in widths(call.dtype):
        known = ", ".join(map(str, widths(call.dtype)))
        return f"heads of {call.head_dim} in {call.dtype}; it has tiles for {known}"
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
        UserError: a size that is no power of two, or too small.
    """
    tiles = tiles_for(str(q.dtype), q.shape[3], options)
    split = window is None and q.dtype != jnp.float32
    return gpu_flash.attend(_Triton(tiles, split, interpreted()), q, k, v, ranges)


class _Triton(NamedTuple):
    """The kernels, with their tiles."""

    tiles: Tiles[Tile]
    split: bool
    """Whether whole tiles are computed without a mask. It does not pay for windows, which have few
    whole tiles, nor in float32, which leaves few registers."""
    interpret: bool

    @property
    def multiple(self) -> int:
        return max(size for tile in self.tiles for size in tile[:2])

    def seen(self, ranges: KeyRanges) -> tuple[Seen, Seen, Seen]:
        fwd, dkv, dq = self.tiles
        return (
            gpu_flash.seen(ranges, fwd.q, fwd.k, self.multiple),
            gpu_flash.seen(ranges.transposed, dkv.k, dkv.q, self.multiple),
            gpu_flash.seen(ranges, dq.q, dq.k, self.multiple),
        )

    def fwd(self, q, k, v, seen):
        own, whole = _specs(q, k, self.tiles.fwd.q)
        return self._call(
            attention_fwd,
            self.tiles.fwd,
            in_specs=[own.wide, whole.wide, whole.wide, *own.seen],
            out_specs=[own.wide, own.thin],
            out_shape=[like(q), lse_of(q)],
        )(q, k, v, *seen)

    def dkv(self, q, k, v, do, lse, delta, seen):
        own, whole = _specs(k, q, self.tiles.dkv.k)
        sides = [whole.wide, own.wide, own.wide, whole.wide, whole.thin, whole.thin]
        return self._call(
            attention_dkv,
            self.tiles.dkv,
            in_specs=[*sides, *own.seen],
            out_specs=[own.wide, own.wide],
            out_shape=[like(k), like(v)],
        )(q, k, v, do, lse, delta, *seen)

    def dq(self, q, k, v, do, lse, delta, seen):
        own, whole = _specs(q, k, self.tiles.dq.q)
        sides = [own.wide, whole.wide, whole.wide, own.wide, own.thin, own.thin]
        (dq,) = self._call(
            attention_dq,
            self.tiles.dq,
            in_specs=[*sides, *own.seen],
            out_specs=[own.wide],
            out_shape=[like(q)],
        )(q, k, v, do, lse, delta, *seen)
        return dq

    def _call(self, kernel, tile, *, out_specs, out_shape, **specs):
        rows, length, heads, _ = out_shape[0].shape
        return pl.pallas_call(
            functools.partial(kernel, tile=tile, split=self.split),
            grid=(length // out_specs[0].block_shape[1], rows, heads),
            out_specs=out_specs,
            out_shape=out_shape,
            compiler_params=plgpu.CompilerParams(num_warps=tile.warps, num_stages=tile.stages),
            interpret=self.interpret,
            name=kernel.__name__,
            **specs,
        )


class _Specs(NamedTuple):
    wide: pl.BlockSpec
    thin: pl.BlockSpec
    seen: tuple[pl.BlockSpec, ...] = ()


def _specs(x, others, size):
    """Blocks of [B, T, N, H], [B, N, T] and `Seen` for a program: its tile, or all tokens."""
    length, width = others.shape[1], x.shape[3]
    own = _Specs(
        pl.BlockSpec((None, size, None, width), lambda i, b, n: (b, i, n, 0)),
        pl.BlockSpec((None, None, size), lambda i, b, n: (b, n, i)),
        (
            *[pl.BlockSpec((None, size), lambda i, b, n: (b, i))] * 2,
            pl.BlockSpec((None, None, 4), lambda i, b, n: (b, i, 0)),
        ),
    )
    whole = _Specs(
        pl.BlockSpec((None, length, None, width), lambda i, b, n: (b, 0, n, 0)),
        pl.BlockSpec((None, None, length), lambda i, b, n: (b, n, 0)),
    )
    return own, whole

"""Parts of warp-specialised kernels on Hopper: a ring of tiles, and matrix products.

One warpgroup of a block copies tiles into stages of shared memory (TMA), and all others compute:

    copying      wait until a stage is free      copy a tile into it
    computing    wait until it is full           compute, if a token of theirs sees the tile
                 free it

jax's interpreter of such kernels has no products of registers and shared memory, nor transposed
tiles. On a CPU the two functions of products compute the same from values.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from modernbert_jax.attention.hopper_tiles import COPIER_REGISTERS, OWN, Tile
from modernbert_jax.platform import interpreted

Ref = Any
"""A reference to memory, or to a part of it."""

AXES = ("row", "head", "block")
"""Axes of the grid, the last one fastest: blocks that read the same tiles run at about the same
time."""

WARPGROUP = "warpgroup"


class Legs(NamedTuple):
    """Tiles that are copied, `first` to `end - 1`, and those that are computed among them."""

    first: jax.Array
    start: jax.Array
    stop: jax.Array
    end: jax.Array


class Ring(NamedTuple):
    """Stages through which tiles pass."""

    buffers: tuple[Ref, ...]
    """Shared memory [stages, step, ...] of each copied array."""
    full: Ref
    free: Ref
    """Barriers of each stage."""

    @classmethod
    def types(cls, tile: Tile, *buffers: tuple[tuple[int, ...], Any]) -> "Ring":
        """Types of a ring for arrays with these shapes of a tile and dtypes."""
        memory = [plgpu.SMEM((tile.stages, *shape), dtype) for shape, dtype in buffers]
        return cls(
            tuple(memory),
            plgpu.Barrier(num_arrivals=len(memory), num_barriers=tile.stages),
            plgpu.Barrier(num_arrivals=tile.warpgroups, num_barriers=tile.stages),
        )

    def fill(self, sources: Sequence[Ref], first: jax.Array, stop: jax.Array) -> None:
        """Copy tiles `first`, ..., `stop - 1` of arrays [T, ...] into stages that become free."""
        stages, step = self.buffers[0].shape[:2]

        @pl.loop(0, stop - first)
        def _(n):
            stage = lax.rem(n, jnp.int32(stages))
            pl.when(n >= stages)(lambda: plgpu.barrier_wait(self.free.at[stage]))
            for source, buffer in zip(sources, self.buffers, strict=True):
                tokens = source.at[pl.ds((first + n) * step, step)]
                plgpu.copy_gmem_to_smem(tokens, buffer.at[stage], self.full.at[stage])

        # Shared memory outlives all that is done with it.
        @pl.loop(jnp.maximum(stop - first - stages, 0), stop - first)
        def _(n):
            plgpu.barrier_wait(self.free.at[lax.rem(n, jnp.int32(stages))])

    def visit(self, legs: Legs, body: Callable, carry: Any) -> Any:
        """Loop of `carry = body(tile, buffers, carry)` over the tiles of the second leg."""
        stages = self.buffers[0].shape[0]

        def turn(j, carry, body):
            stage = lax.rem(j - legs.first, jnp.int32(stages))
            plgpu.barrier_wait(self.full.at[stage])
            carry = body(j, [buffer.at[stage] for buffer in self.buffers], carry)
            plgpu.barrier_arrive(self.free.at[stage])
            return carry

        skip = functools.partial(turn, body=lambda j, buffers, carry: carry)
        lax.fori_loop(legs.first, legs.start, skip, None)
        carry = lax.fori_loop(legs.start, legs.stop, functools.partial(turn, body=body), carry)
        lax.fori_loop(legs.stop, legs.end, skip, None)
        return carry


def specialise(tile: Tile, copy: Callable[[], None], compute: Callable[[jax.Array], None]) -> None:
    """Give the last warpgroup of a block `copy()`, and all others `compute(number)`."""
    number = lax.axis_index(WARPGROUP)

    @pl.when(number == tile.warpgroups)
    def _():
        plgpu.set_max_registers(COPIER_REGISTERS, action="decrease")
        copy()

    @pl.when(number < tile.warpgroups)
    def _():
        plgpu.set_max_registers(tile.registers, action="increase")
        compute(number)


def load(sources: Sequence[Ref], buffers: Sequence[Ref], barrier: Ref) -> None:
    """Copy a warpgroup's own tokens into shared memory, and wait."""
    for source, buffer in zip(sources, buffers, strict=True):
        plgpu.copy_gmem_to_smem(source, buffer, barrier)
    plgpu.barrier_wait(barrier)


def store(values: Sequence[jax.Array], buffers: Sequence[Ref], targets: Sequence[Ref]) -> None:
    """Write results by way of shared memory, rounded to its type, and wait."""
    for value, buffer in zip(values, buffers, strict=True):
        buffer[...] = value.astype(buffer.dtype)
    plgpu.commit_smem()
    for buffer, target in zip(buffers, targets, strict=True):
        plgpu.copy_smem_to_gmem(buffer, target)
    plgpu.wait_smem_to_gmem(0)


def read(ref: Ref) -> jax.Array:
    """A value from memory, in the layout that its use needs."""
    return ref[...] if interpreted() else plgpu.load(ref, (), optimized=False)


def products(*pairs: tuple[Ref, Ref]) -> list[jax.Array]:
    """Products a b' of tiles in shared memory: float32 [OWN, step] each."""
    if interpreted():
        return [_dot(a[...], b[...].T) for a, b in pairs]

    def start(*sums):
        for sum_, (a, b) in zip(sums, pairs, strict=True):
            plgpu.wgmma(sum_, a, b.T)
        return [sum_[...] for sum_ in sums]

    shapes = [plgpu.ACC((OWN, b.shape[0]), jnp.float32) for _, b in pairs]
    return pl.run_scoped(start, *shapes)


def accumulated(*terms: tuple[jax.Array, jax.Array, Ref]) -> list[jax.Array]:
    """Sums s + x b, of float32 [OWN, H], values [OWN, step] and tiles in shared memory."""
    rounded = [(s, x.astype(b.dtype), b) for s, x, b in terms]
    if interpreted():
        return [s + _dot(x, b[...]) for s, x, b in rounded]

    def start(sums):
        for sum_, (_, x, b) in zip(sums, rounded, strict=True):
            plgpu.wgmma(sum_, x, b)

    return pl.run_state(start)([plgpu.ACC.init(s) for s, _, _ in rounded])


def _dot(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.dot(a.astype(jnp.float32), b.astype(jnp.float32))

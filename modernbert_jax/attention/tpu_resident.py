"""Parts of both kernels over documents: streamed blocks, and a row that stays in VMEM.

    forward     blocks of queries are streamed    keys and values of the row stay
    backward    blocks of keys are streamed       queries, cotangents and the sum of dq stay

The row is read in steps, at places that are known at run time only. Arrays with a number for each
query are therefore divided by steps, too, [B, T / step, ., step]: reading one needs no shift.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from modernbert_jax.attention.tpu_tiles import LANES

CHUNK = 128
"""Number of queries of a head whose scores with a step of keys are computed together."""


class Sizes(NamedTuple):
    """Tokens of a block of queries and of keys, both multiples of the step."""

    queries: int
    keys: int
    buffers: int
    """Number of buffers for the row: 2 loads the next row early; 1 takes less memory."""


class Visits(NamedTuple):
    """Steps that each block visits, `number` of them from `start`: int32 [B * blocks] each."""

    start: jax.Array
    number: jax.Array


def vmem_bytes(queries: int, keys: int, dtype: jnp.dtype, buffers: int) -> int:
    """Vector memory in bytes for rows of so many tokens, in the pass that takes more.

    The forward pass holds k and v, the backward pass q, do, dq and the sum of dq, whole rows of a
    tile each. Blocks and scores take 3.5 MiB more, as measured by compiling.
    """
    forward = 2 * buffers * keys * dtype.itemsize
    backward = ((2 * buffers + 2) * dtype.itemsize + 4) * queries
    return LANES * max(forward, backward) + 7 * 2**19


class Specs:
    """Blocks of arrays for a grid of (row, tile of heads, block)."""

    def __init__(self, length: int, block: int, step: int, heads: int, buffers: int):
        """Blocks of `block` streamed tokens, and rows of `length` tokens that stay."""
        steps, mode = block // step, pl.Buffered(buffers)
        self.here = pl.BlockSpec((1, block, LANES), lambda b, t, i, *_: (b, i, t))
        self.row = pl.BlockSpec((1, length, LANES), lambda b, t, i, *_: (b, 0, t))
        self.loaded_row = pl.BlockSpec(
            (1, length, LANES), lambda b, t, i, *_: (b, 0, t), pipeline_mode=mode
        )
        self.bounds_here = pl.BlockSpec((1, steps, 2, step), lambda b, t, i, *_: (b, i, 0, 0))
        self.bounds_row = pl.BlockSpec(
            (1, length // step, 2, step), lambda b, t, i, *_: (b, 0, 0, 0), pipeline_mode=mode
        )
        self.lse_here = pl.BlockSpec(
            (1, 1, steps, heads, step), lambda b, t, i, *_: (b, t, i, 0, 0)
        )
        self.lse_row = pl.BlockSpec(
            (1, 1, length // step, heads, step),
            lambda b, t, i, *_: (b, t, 0, 0, 0),
            pipeline_mode=mode,
        )


def call(kernel, blocks: tuple[int, int, int], vmem: int, *, name: str, specs: dict, **options):
    """A kernel over (rows, tiles, blocks), whose first arguments are the arrays of `Visits`."""
    return pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(num_scalar_prefetch=2, grid=blocks, **specs),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=max(16 * 2**20, vmem),
        ),
        name=f"global_attention_{name}",
        **options,
    )

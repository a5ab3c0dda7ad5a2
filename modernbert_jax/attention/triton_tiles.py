"""Tiles of the GPU kernels: numbers of queries, keys, warps and stages.

A tile costs registers and shared memory; one that is too large spills and is slower. The compiler's
figures for each, on every generation of GPUs, are in docs/how/attention.md.
"""

from typing import NamedTuple

from modernbert_jax.attention import gpu_tiles
from modernbert_jax.attention.gpu_tiles import Tiles
from modernbert_jax.errors import UserError


class Tile(NamedTuple):
    """Queries and keys of a tile, and how Triton compiles a kernel that works on it."""

    q: int
    k: int
    warps: int
    stages: int


_HALF = Tiles(Tile(64, 64, 4, 2), Tile(32, 64, 4, 2), Tile(64, 64, 4, 2))
_WIDE = Tiles(Tile(64, 32, 4, 2), Tile(32, 64, 8, 2), Tile(64, 32, 4, 2))
_FLOAT32 = Tiles(Tile(64, 16, 4, 1), Tile(32, 32, 4, 1), Tile(32, 32, 4, 1))
_FLOAT32_WIDE = Tiles(Tile(32, 32, 8, 1), Tile(16, 16, 4, 1), Tile(16, 16, 4, 1))

_TILES = {
    ("bfloat16", 32): _HALF,
    ("bfloat16", 64): _HALF,
    ("bfloat16", 128): _WIDE,
    ("float16", 32): _HALF,
    ("float16", 64): _HALF._replace(fwd=Tile(64, 32, 4, 3)),
    ("float16", 128): _WIDE,
    ("float32", 32): _FLOAT32,
    ("float32", 64): _FLOAT32,
    ("float32", 128): _FLOAT32_WIDE,
}
"""Tiles that do not spill on sm80, sm89, sm90 and sm100, by dtype and width of heads.

`tuning.json` overrides them for some GPUs.
"""

OPTIONS = gpu_tiles.options(Tile)
"""Options of tuning files: fwd_q, fwd_k, fwd_warps, fwd_stages, dkv_q and so on."""

SWEEP = gpu_tiles.sweep(
    Tile,
    {
        "fwd": [(64, 32, 4, 3), (64, 64, 4, 2), (64, 64, 4, 3), (128, 64, 8, 2), (128, 64, 8, 3)],
        "dkv": [(32, 64, 4, 2), (64, 64, 4, 2), (64, 64, 8, 2), (32, 128, 8, 2), (64, 128, 8, 2)],
        "dq": [(64, 32, 4, 2), (64, 64, 4, 2), (64, 64, 4, 3), (128, 64, 8, 2), (128, 64, 8, 3)],
    },
)
"""Options that a benchmark tries, for each kernel by itself."""


def widths(dtype: str) -> tuple[int, ...]:
    """Widths of heads with tiles for a dtype."""
    return tuple(width for known, width in _TILES if known == dtype)


def tiles_for(dtype: str, head_dim: int, options: dict[str, int]) -> Tiles[Tile]:
    """Tiles for a dtype and a width of heads, with some numbers replaced by name.

    Raises:
        UserError: a size that is not a power of two, or too small.
    """
    return gpu_tiles.replaced(_TILES[dtype, head_dim], options, _check)


def _check(name: str, part: str, value: int) -> None:
    least = {"q": 16, "k": 16}.get(part, 1)
    if value < least or (part != "stages" and value & (value - 1)):
        raise UserError(f"{name} is {value}; it must be a power of two of at least {least}")

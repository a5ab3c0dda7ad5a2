"""Tiles of the three kernels for GPUs: their options in tuning files, and those to try."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

T = TypeVar("T")
"""A kind of tile: a named tuple of numbers."""


class Tiles(NamedTuple, Generic[T]):
    """A tile for each of the three kernels."""

    fwd: T
    dkv: T
    dq: T


def options(kind: Any) -> tuple[str, ...]:
    """Names of options: the kernel, then the part of the tile, as in fwd_stages."""
    return tuple(f"{kernel}_{part}" for kernel in Tiles._fields for part in kind._fields)


def sweep(
    kind: Any, tiles: Mapping[str, Sequence[tuple[int, ...]]]
) -> tuple[tuple[dict[str, int], ...], ...]:
    """Options of several tiles of each kernel, which exclude each other."""
    return tuple(
        tuple(
            {f"{kernel}_{part}": n for part, n in zip(kind._fields, tile, strict=True)}
            for tile in some
        )
        for kernel, some in tiles.items()
    )


def replaced(
    tiles: Tiles[T], options: Mapping[str, int], check: Callable[[str, str, int], None]
) -> Tiles[T]:
    """Tiles with some numbers replaced by name.

    Args:
        tiles: the default.
        options: numbers by the names of `options`.
        check: `check(name, part, number)` raises for a number that is not supported.
    """
    for name, value in options.items():
        kernel, part = name.split("_")
        check(name, part, value)
        tile = getattr(tiles, kernel)._replace(**{part: value})
        tiles = tiles._replace(**{kernel: tile})
    return tiles

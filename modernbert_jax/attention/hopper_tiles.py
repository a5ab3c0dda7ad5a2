"""Tiles of the Hopper kernels: warpgroups, tokens of a step and stages of shared memory.

A block has one warpgroup that copies and others that compute, 64 tokens each. A warpgroup computes
a matrix product of 64 rows, so that is the smallest share. More warpgroups read each copied tile
more often, and hide each other's waits; larger steps need more registers:

    warpgroups that compute     registers of a thread     largest step
    2                           240                       128 tokens
    4                           112                       64 tokens
"""

from typing import NamedTuple

from modernbert_jax.attention import gpu_tiles
from modernbert_jax.attention.gpu_tiles import Tiles
from modernbert_jax.attention.ranges import UNIT
from modernbert_jax.errors import UserError

OWN = UNIT
"""Tokens that a warpgroup computes."""

COPIER_REGISTERS = 24
"""Registers of a thread that only copies: the smallest number that the hardware allows."""

_REGISTERS = 65536
_WARPGROUP = 128
"""Registers of a multiprocessor, and threads of a warpgroup."""


class Tile(NamedTuple):
    """How a kernel divides its work."""

    warpgroups: int
    """Warpgroups that compute."""
    step: int
    """Tokens of the other side that they visit at once."""
    stages: int
    """Steps in shared memory at once."""

    @property
    def own(self) -> int:
        """Tokens that a block computes."""
        return OWN * self.warpgroups

    @property
    def registers(self) -> int:
        """Registers of a thread that computes: all that the copying warpgroup leaves."""
        launched = _REGISTERS // ((self.warpgroups + 1) * _WARPGROUP) // 8 * 8
        left = launched * (self.warpgroups + 1) - COPIER_REGISTERS
        return left // self.warpgroups // 8 * 8


DEFAULT = Tiles(fwd=Tile(4, 64, 4), dkv=Tile(2, 64, 3), dq=Tile(2, 64, 3))

OPTIONS = gpu_tiles.options(Tile)
"""Options of tuning files: fwd_warpgroups, fwd_step, fwd_stages, dkv_warpgroups and so on."""

SWEEP = gpu_tiles.sweep(
    Tile,
    {
        "fwd": [(2, 64, 4), (2, 128, 2), (2, 128, 3), (4, 64, 4)],
        "dkv": [(2, 64, 2), (2, 64, 3)],
        "dq": [(2, 64, 3), (2, 64, 4), (2, 128, 2)],
    },
)
"""Options that a benchmark tries, for each kernel by itself."""

_ALLOWED = {"warpgroups": (2, 4), "step": (64, 128), "stages": (2, 3, 4, 5, 6)}


def tiles_for(options: dict[str, int]) -> Tiles[Tile]:
    """The default tiles, with some numbers replaced by name.

    Raises:
        UserError: a number that the kernels do not support.
    """
    return gpu_tiles.replaced(DEFAULT, options, _check)


def _check(name: str, part: str, value: int) -> None:
    if value not in _ALLOWED[part]:
        known = ", ".join(map(str, _ALLOWED[part]))
        raise UserError(f"{name} is {value}; it must be one of {known}")

"""`StoredBlocks`: the representations of many texts, in parts on disk."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from .blocks import Block, arrays_of, block_of, grown, joined, shrunk, take
from .parts import Arrays, Parts

TEXTS = 2048
"""Texts of a part, whose representations are in one file."""


@dataclasses.dataclass(frozen=True)
class StoredBlocks:
    """The representations of many texts, in parts on disk."""

    parts: Parts
    count: int
    """Number of texts."""
    size: int
    """Texts of a part."""
    compute: Callable[[int], Block]
    """Function from the number of a part that is not stored to its representations."""
    stored: str = "float32"
    """How numbers are kept; what is read is float32."""

    @property
    def numbers(self) -> range:
        """Numbers of all parts."""
        return range(-(-self.count // self.size))

    @property
    def missing(self) -> list[int]:
        """Numbers of the parts that are not stored yet."""
        return [number for number in self.numbers if not self.parts.path(number).exists()]

    def __iter__(self) -> Iterator[Block]:
        """The representations of all texts, part by part."""
        return map(self.part, self.numbers)

    def part(self, number: int) -> Block:
        """The representations of a part, from its file, or computed and stored."""
        arrays = self.parts.get(number, lambda: self._arrays(self.compute(number)))
        return block_of(grown(arrays, self.stored))

    def store(self, number: int, block: Block) -> None:
        """Store the representations of a part."""
        self.parts.get(number, lambda: self._arrays(block))

    def _arrays(self, block: Block) -> Arrays:
        return shrunk(arrays_of(block), self.stored)

    def take(self, numbers: np.ndarray) -> Block:
        """The representations of some texts [m], at least one; each part is read once."""
        of, blocks, places = numbers // self.size, [], []
        for number in np.unique(of).tolist():
            here = np.flatnonzero(of == number)
            blocks.append(take(self.part(number), numbers[here] % self.size))
            places.append(here)
        return take(joined(blocks), np.argsort(np.concatenate(places)))

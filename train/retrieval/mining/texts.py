"""`TextFile`: many texts in one file on disk, read by number; written once, from start to end."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import overload

import numpy as np

CONTENT, ENDS = "texts.bin", "ends.npy"


class TextFile(Sequence[str]):
    """Texts in UTF-8, one after the other, mapped into memory."""

    def __init__(self, folder: Path, order: np.ndarray | None = None):
        """Open the texts that `write` stored.

        Args:
            folder: that holds them.
            order: numbers of the texts to show, in their order; None is all.
        """
        size = (folder / CONTENT).stat().st_size
        self._ends = np.load(folder / ENDS, mmap_mode="r")
        self._content = np.memmap(folder / CONTENT, np.uint8, "r") if size else np.zeros(0, "u1")
        self._order = order

    def __len__(self) -> int:
        return len(self._ends) if self._order is None else len(self._order)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        at = int(index if self._order is None else self._order[index])
        start = int(self._ends[at - 1]) if at % len(self._ends) else 0
        return self._content[start : int(self._ends[at])].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        return (self[i] for i in range(len(self)))


def write(folder: Path, texts: Iterable[str]) -> int:
    """Store texts in a folder, and count them; they are in memory one at a time."""
    ends, end = array("q"), 0
    with open(folder / CONTENT, "wb") as file:
        for text in texts:
            end += file.write(text.encode())
            ends.append(end)
    np.save(folder / ENDS, np.frombuffer(ends, np.int64))
    return len(ends)

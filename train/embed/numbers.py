"""How the numbers of vectors are stored: in fewer bits than float32, and back.

int8 and binary are the quantisations of sentence-transformers' `quantize_embeddings`, but for int8
this rounds to the nearest step.
"""

import dataclasses
from collections.abc import Iterable

import ml_dtypes
import numpy as np

from modernbert_jax.errors import UserError

from .config import Stored

BITS: dict[Stored, type] = {
    "float32": np.float32,
    "float16": np.float16,
    "bfloat16": np.uint16,
    "int8": np.int8,
    "binary": np.uint8,
}
"""Type of the arrays that are written. bfloat16 is written as its 16 bits, as neither Arrow nor
.npy has it; binary as bytes of eight numbers, the first one in the highest bit."""

_STEPS = 255


@dataclasses.dataclass(frozen=True)
class Numbers:
    """How the numbers of vectors are stored."""

    dtype: Stored
    ranges: np.ndarray | None = None
    """Smallest and largest number of each dimension, float32 [2, E]; for int8."""

    def width(self, dims: int) -> int:
        """Numbers of a stored vector that has so many dimensions."""
        return -(-dims // 8) if self.dtype == "binary" else dims

    def stored(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors as they are written, [n, width], or weights of any shape.

        Raises:
            UserError: a number is beyond the range of float16.
        """
        if self.dtype == "binary":
            return np.packbits(vectors > 0, axis=-1)
        if self.dtype == "int8":
            low, step = self._steps()
            steps = np.rint((vectors - low) / step) - 128
            return np.clip(steps, -128, 127).astype(np.int8)
        if self.dtype == "bfloat16":
            return vectors.astype(ml_dtypes.bfloat16).view(np.uint16)
        with np.errstate(over="ignore"):
            kept: np.ndarray = vectors.astype(BITS[self.dtype])
        if not np.isfinite(kept).all():
            raise UserError(
                "vectors have numbers beyond the range of float16; pass another --dtype"
            )
        return kept

    def restored(self, stored: np.ndarray, dims: int) -> np.ndarray:
        """Stored vectors as float32 [n, dims]; of binary ones each number is 1 or -1."""
        if self.dtype == "binary":
            bits = np.unpackbits(stored, axis=-1, count=dims)
            return 2 * bits.astype(np.float32) - 1
        if self.dtype == "int8":
            low, step = self._steps()
            return (stored.astype(np.float32) + 128) * step + low
        if self.dtype == "bfloat16":
            stored = stored.view(ml_dtypes.bfloat16)
        return stored.astype(np.float32)

    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        """The number of step -128 of each dimension, and the distance between steps."""
        assert self.ranges is not None  # whoever stores int8 has calibrated it
        low, high = self.ranges
        return low, np.where(high > low, (high - low) / _STEPS, 1).astype(np.float32)


def ranges_of(blocks: Iterable[np.ndarray], dims: int) -> np.ndarray:
    """Smallest and largest number of each dimension of vectors, float32 [2, dims].

    Args:
        blocks: vectors [n, dims] each.
        dims: their width.

    Raises:
        UserError: there are no vectors.
    """
    low, high = np.full(dims, np.inf, np.float32), np.full(dims, -np.inf, np.float32)
    for block in blocks:
        if len(block):
            low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
    if not (low <= high).all():
        raise UserError("the input has no texts from which the ranges of int8 could be taken")
    return np.stack([low, high])

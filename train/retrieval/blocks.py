"""`Block`: the representations of consecutive texts, as search, mining and evaluation pass them on.

A model with one vector for a text gives an array [n, E]. A model with several vectors or weights
for a text gives a list: for each text an array, or a tuple of arrays of one length.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Block = Any
"""An array [n, ...], or a list with an array or a tuple of arrays for each of n texts."""

_VECTORS, _LENGTHS = "vectors", "lengths"


def arrays_of(block: Block) -> dict[str, np.ndarray]:
    """Arrays by name from which `block_of` makes the block again; at least one text."""
    if isinstance(block, np.ndarray):
        return {_VECTORS: block}
    texts = [text if isinstance(text, tuple) else (text,) for text in block]
    parts = {str(i): np.concatenate(part) for i, part in enumerate(zip(*texts, strict=True))}
    return {_LENGTHS: np.array([len(text[0]) for text in texts], np.int64), **parts}


def block_of(arrays: dict[str, np.ndarray]) -> Block:
    """The block that `arrays_of` has taken apart."""
    if _LENGTHS not in arrays:
        return arrays[_VECTORS]
    ends = np.cumsum(arrays[_LENGTHS])[:-1]
    parts = [np.split(array, ends) for name, array in arrays.items() if name != _LENGTHS]
    return parts[0] if len(parts) == 1 else [*zip(*parts, strict=True)]


def take(block: Block, numbers: np.ndarray) -> Block:
    """The representations of some texts, by their numbers in the block [m]."""
    return block[numbers] if isinstance(block, np.ndarray) else [block[i] for i in numbers.tolist()]


def joined(blocks: Sequence[Block]) -> Block:
    """The representations of all texts of several blocks, at least one block."""
    if isinstance(blocks[0], np.ndarray):
        return np.concatenate(blocks)
    return [text for block in blocks for text in block]

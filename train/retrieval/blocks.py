"""`Block`: the representations of consecutive texts, as search, mining and evaluation pass them on.

A model with one vector for a text gives an array [n, E]. A model with several vectors or weights
for a text gives a list: for each text an array, or a tuple of arrays of one length.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

Block = Any
"""An array [n, ...], or a list with an array or a tuple of arrays for each of n texts."""

_FACTORS = ".factors"
"""End of the names of those factors."""

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


def shrunk(arrays: dict[str, np.ndarray], stored: str) -> dict[str, np.ndarray]:
    """Arrays as they are kept on disk: "float32", "float16" or "int8"; `grown` is the reverse.

    With int8 the largest number of a vector becomes 127 or -127. Numbers that belong to no vector,
    such as the weights of sparse vectors, are kept in float16 then.
    """
    if stored == "float32":
        return arrays
    kept: dict[str, np.ndarray] = {}
    for name, x in arrays.items():
        if x.dtype != np.float32:
            kept[name] = x
        elif stored == "int8" and x.ndim == 2:
            factors = np.abs(x).max(1, initial=0.0, keepdims=True) / 127
            kept[name] = np.rint(x / np.where(factors > 0, factors, 1)).astype(np.int8)
            kept[name + _FACTORS] = factors.astype(np.float32)
        else:
            kept[name] = x.astype(np.float16)
    return kept


def grown(arrays: dict[str, np.ndarray], stored: str) -> dict[str, np.ndarray]:
    """Arrays from those of `shrunk`."""
    if stored == "float32":
        return arrays
    return {
        name: x.astype(np.float32) * arrays.get(name + _FACTORS, np.float32(1))
        if x.dtype in (np.float16, np.int8)
        else x
        for name, x in arrays.items()
        if not name.endswith(_FACTORS)
    }

"""Random documents of the paper's four sets: short and long, of one length or of many."""

import dataclasses
from typing import Literal

import numpy as np

from .settings import Size

Spread = Literal["fixed", "variable"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """Lengths of the documents of two sets, in tokens with the special ones."""

    fixed: int
    """Length of every document of the fixed set."""
    mean: float
    deviation: float
    """Of the normal distribution of the variable set."""
    shortest: int
    longest: int
    """Range of that distribution's draws."""


LENGTHS: dict[Size, Lengths] = {
    "short": Lengths(fixed=512, mean=256, deviation=64, shortest=32, longest=476),
    "long": Lengths(fixed=8192, mean=4096, deviation=1024, shortest=171, longest=7624),
}
"""The paper's sets: 8,192 draws have 2,096,510 and 33,604,913 tokens."""


def lengths(size: Size, spread: Spread, documents: int, longest: int) -> list[int]:
    """Lengths of a set's documents; those of a model with a shorter input are scaled down.

    Args:
        size: short or long.
        spread: whether all documents have one length.
        documents: number of documents.
        longest: longest input of the model, in tokens.
    """
    own = LENGTHS[size]
    scale = min(1.0, longest / own.fixed)
    if spread == "fixed":
        return [round(own.fixed * scale)] * documents
    draws = np.random.default_rng(0).normal(own.mean, own.deviation, documents)
    return (draws.clip(own.shortest, own.longest) * scale).round().astype(int).clip(1).tolist()


def documents(of: list[int], vocab_size: int, seed: int = 0) -> list[list[int]]:
    """Random token ids of documents of some lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, vocab_size, n).tolist() for n in of]

"""Options of the efficiency benchmark, and its sides. Imports neither jax nor numpy."""

import dataclasses
import importlib.util
from typing import Literal

from modernbert_jax import ranges
from modernbert_jax.ranges import Count, Natural, Positive

Size = Literal["short", "long"]

Side = Literal["ours", "sdpa", "flash"]

TITLES: dict[Side, str] = {
    "ours": "modernbert-jax, packed",
    "sdpa": "transformers, sdpa, padded",
    "flash": "transformers, flash attention",
}
"""Descriptions of the sides."""


DOCUMENTS = 8192
"""Documents of each set in the paper."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of the efficiency benchmark; the defaults are the paper's protocol."""

    model: str = "base"
    """Checkpoint of any format, the name of one on the hub, or a preset with random weights: base,
    large, ettin-17m, ... Speed does not depend on the weights."""
    sizes: tuple[Size, ...] = ("short", "long")
    """Sets: documents of 512 tokens, or of 8,192 tokens; each with one length, then with many."""
    documents: Count = DOCUMENTS
    """Documents of a set of short ones. On a CPU 32 take a minute for base."""
    long_documents: Count = DOCUMENTS
    """Documents of a set of long ones. On a CPU 2 take a minute for base."""
    passes: Count = 10
    """Passes over each set, of which the mean counts."""
    batch: Natural = 0
    """Documents of a batch. 0 takes the largest batch that fits into an accelerator's memory; on a
    CPU, where that is not the fastest, as many as have 8,192 tokens."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of weights and computation of all sides. Flash attention needs bfloat16."""
    sides: tuple[Side, ...] = ("ours", "sdpa", "flash")
    """Sides to measure; those whose packages are not installed are left out."""
    enough: Positive = 3600.0
    """Seconds of a set after which no further pass begins."""

    def __post_init__(self) -> None:
        ranges.check(self)

    def count(self, size: Size) -> int:
        """Documents of a set."""
        return self.documents if size == "short" else self.long_documents


def missing(side: Side, dtype: str) -> str | None:
    """The reason why a side cannot be measured, or None."""
    if side == "ours":
        return None
    packages = ("torch", "transformers", *(("flash_attn",) if side == "flash" else ()))
    lacking = [name for name in packages if importlib.util.find_spec(name) is None]
    if lacking:
        return f"{', '.join(lacking)} not installed"
    if side == "flash" and dtype != "bfloat16":
        return "it needs --dtype bfloat16"
    return None

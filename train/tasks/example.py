"""An example: the token ids of a record and the target that the model should predict."""

import dataclasses
from typing import Any

import numpy as np

IGNORED = -100
"""Target of a token without a label, as in PyTorch and transformers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One record, ready to be packed."""

    id: str
    """The record's own id, or its place ("FILE:LINE")."""
    sequences: tuple[np.ndarray, ...]
    """int32 token ids with special tokens: one sequence for most tasks, one per option of multiple
    choice, one per window of a long document."""
    target: Any = None
    """Target as the task's docstring defines it; None for unlabelled records."""
    source: Any = None
    """Facts of the record for decoding and metrics: words, offsets, text, reference answers."""
    cut: bool = False
    """Whether text was left out, because a sequence would be longer than the task allows."""

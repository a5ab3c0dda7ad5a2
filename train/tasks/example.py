"""What a task makes of a record: token ids, and what the model should say about them."""

import dataclasses
from typing import Any

import numpy as np

IGNORED = -100
"""The target of a token without a label, as in PyTorch and transformers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """One record, ready to be packed."""

    id: str
    """The record's own, or its place ("FILE:LINE")."""
    sequences: tuple[np.ndarray, ...]
    """int32 token ids with their special tokens: one for most tasks, one for each choice, one for
    each window of a long document."""
    target: Any = None
    """None where unlabelled; otherwise what the task's docstring says."""
    source: Any = None
    """What decoding needs of the record: words, offsets, the text, gold answers."""

"""`Candidates`: documents that a first stage found for each query."""

from typing import NamedTuple

import numpy as np

NONE = -1
"""Index where there is no candidate."""


class Candidates(NamedTuple):
    """Documents that resemble queries [Q, K], best first."""

    scores: np.ndarray
    """float32 [Q, K]."""
    indices: np.ndarray
    """int64 [Q, K], numbers of documents; `NONE` where there are fewer."""

"""Scores of queries and documents: similarities, MaxSim, and the best documents of a query."""

from .exact_search import TopK, top_k
from .interaction import Texts, maxsim, paired_maxsim, reading_order
from .similarity import SIMILARITIES
from .sparse import SparseTopK

__all__ = [
    "SIMILARITIES",
    "SparseTopK",
    "Texts",
    "TopK",
    "maxsim",
    "paired_maxsim",
    "reading_order",
    "top_k",
]

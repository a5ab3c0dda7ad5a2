"""Scores of queries and documents: similarities, MaxSim, and the best documents of a query."""

from .exact_search import TopK, top_k
from .interaction import Texts, maxsim, paired_maxsim, reading_order
from .late_search import LateTopK, late_pairs
from .similarity import SIMILARITIES
from .sparse import SparseTopK
from .xtr import xtr

__all__ = [
    "SIMILARITIES",
    "LateTopK",
    "SparseTopK",
    "Texts",
    "TopK",
    "late_pairs",
    "maxsim",
    "paired_maxsim",
    "reading_order",
    "top_k",
    "xtr",
]

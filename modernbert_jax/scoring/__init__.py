"""Scores of queries and documents: similarities of vectors, and the best documents of a query."""

from .exact_search import TopK, top_k
from .similarity import SIMILARITIES

__all__ = ["SIMILARITIES", "TopK", "top_k"]

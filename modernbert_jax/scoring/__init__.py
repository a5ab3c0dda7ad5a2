"""Scores of queries and documents: similarities of vectors, and the best documents of a query."""

from .similarity import SIMILARITIES

__all__ = ["SIMILARITIES"]

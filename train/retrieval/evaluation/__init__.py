"""Evaluation of retrieval: metrics, collections, lists to rerank, similarity and triplets.

metrics = evaluate(encoder, read_collection("scifact"))       # {"ndcg@10": ..., ...}
"""

from .metrics import METRICS, RERANKING, Metric, by_query, means, of_run, ranked
from .retrieval import evaluate

__all__ = [
    "METRICS",
    "RERANKING",
    "Metric",
    "by_query",
    "evaluate",
    "means",
    "of_run",
    "ranked",
]

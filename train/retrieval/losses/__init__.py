"""Losses of retrieval: functions of vectors or scores, with sentence-transformers' defaults.

Losses of vectors take `query` [N, E] and `documents` [K, N, E]; rerankers' losses take `scores`
[K, N], and those of late interaction may take the scores of all documents, [K, N, N]. Then come
`targets` where they need them. All compute in float32 and return one number for the batch.
`LOSSES`, `RERANKER_LOSSES`, `LATE_LOSSES` and `SPARSE_LOSSES` call them all alike.
"""

from .config import TABLES, LossConfig
from .distillation import distill_kl, embed_distill, margin_mse
from .kind import LossKind
from .labels import angle, contrastive, cosent, cosine_similarity, online_contrastive
from .matryoshka import matryoshka
from .ranking import gist, multiple_negatives_ranking, triplet
from .regularization import flops, global_orthogonal_regularization
from .table import LATE_LOSSES, LOSSES, RERANKER_LOSSES, SPARSE_LOSSES

__all__ = [
    "LATE_LOSSES",
    "LOSSES",
    "RERANKER_LOSSES",
    "SPARSE_LOSSES",
    "TABLES",
    "LossConfig",
    "LossKind",
    "angle",
    "contrastive",
    "cosent",
    "cosine_similarity",
    "distill_kl",
    "embed_distill",
    "flops",
    "gist",
    "global_orthogonal_regularization",
    "margin_mse",
    "matryoshka",
    "multiple_negatives_ranking",
    "online_contrastive",
    "triplet",
]

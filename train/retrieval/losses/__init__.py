"""Losses of retrieval: functions of vectors or scores, with sentence-transformers' defaults.

Losses of vectors take `query` [N, E] and `documents` [K, N, E], rerankers' losses take `scores`
[K, N]; then `targets` where they need them. All compute in float32 and return one number for the
batch. `LOSSES` and `RERANKER_LOSSES` call them all alike.
"""

from .config import LossConfig
from .distillation import distill_kl, embed_distill, margin_mse
from .kind import LossKind
from .labels import angle, contrastive, cosent, cosine_similarity, online_contrastive
from .matryoshka import matryoshka
from .ranking import gist, multiple_negatives_ranking, triplet
from .regularization import global_orthogonal_regularization
from .table import LOSSES, RERANKER_LOSSES

__all__ = [
    "LOSSES",
    "RERANKER_LOSSES",
    "LossConfig",
    "LossKind",
    "angle",
    "contrastive",
    "cosent",
    "cosine_similarity",
    "distill_kl",
    "embed_distill",
    "gist",
    "global_orthogonal_regularization",
    "margin_mse",
    "matryoshka",
    "multiple_negatives_ranking",
    "online_contrastive",
    "triplet",
]

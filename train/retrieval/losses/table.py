"""The losses by the names that they have on the command line, with what each needs of the data."""

import functools
from collections.abc import Callable
from typing import Any

from . import every_score, listwise, scores
from .distillation import distill_kl, embed_distill, margin_mse
from .kind import LossKind
from .labels import angle, contrastive, cosent, cosine_similarity, online_contrastive
from .ranking import gist, multiple_negatives_ranking, triplet


def _vectors(name: str, function: Callable[..., Any], **needs: Any) -> LossKind:
    return LossKind(name=name, function=function, **needs)


def _scores(name: str, function: Callable[..., Any], **needs: Any) -> LossKind:
    return LossKind(name=name, function=function, takes="scores", **needs)


def _every_score(name: str, function: Callable[..., Any], **needs: Any) -> LossKind:
    return LossKind(name=name, function=function, takes="every-score", **needs)


def _lists(name: str, function: Callable[..., Any]) -> LossKind:
    return _scores(name, function, least=3, targets="scores", graded=True)


LOSSES: dict[str, LossKind] = {
    kind.name: kind
    for kind in (
        _vectors("multiple-negatives-ranking", multiple_negatives_ranking, in_batch=True),
        _vectors("gist", gist, in_batch=True, guide="similarity"),
        _vectors("triplet", triplet, least=3, most=3),
        _vectors("cosent", cosent, most=2, targets="label"),
        _vectors("angle", angle, targets="label", optional=True),
        _vectors("cosine-similarity", cosine_similarity, most=2, targets="label"),
        _vectors("contrastive", contrastive, most=2, targets="label"),
        _vectors("online-contrastive", online_contrastive, most=2, targets="label"),
        _vectors("margin-mse", margin_mse, least=3, targets="scores", margins=True),
        _vectors("distill-kl", distill_kl, least=3, targets="scores"),
        _vectors("embed-distill", embed_distill, guide="vectors"),
    )
}
"""Losses of vectors by name."""

RERANKER_LOSSES: dict[str, LossKind] = {
    kind.name: kind
    for kind in (
        _scores(
            "binary-cross-entropy",
            scores.binary_cross_entropy,
            targets="scores",
            pointwise=True,
            graded=True,
        ),
        _scores("mse", scores.mse, targets="scores", pointwise=True),
        _scores("margin-mse", scores.margin_mse, least=3, targets="scores", margins=True),
        _scores("multiple-negatives-ranking", scores.multiple_negatives_ranking, in_batch=True),
        _lists("list-net", listwise.list_net),
        _lists("list-mle", listwise.list_mle),
        _lists("p-list-mle", listwise.p_list_mle),
        _lists("rank-net", listwise.rank_net),
        _lists("lambda-loss", listwise.lambda_loss),
        _lists("adr-mse", listwise.adr_mse),
    )
}
"""Losses of a reranker's scores by name."""

LATE_LOSSES: dict[str, LossKind] = {
    kind.name: kind
    for kind in (
        _every_score(
            "multiple-negatives-ranking", every_score.multiple_negatives_ranking, in_batch=True
        ),
        _every_score("margin-mse", scores.margin_mse, least=3, targets="scores", margins=True),
        _every_score("distill-kl", scores.distill_kl, least=3, targets="scores"),
    )
}
"""Losses of late interaction's scores by name."""

SPARSE_LOSSES: dict[str, LossKind] = {
    kind.name: kind
    for kind in (
        _vectors(
            "multiple-negatives-ranking",
            functools.partial(multiple_negatives_ranking, scale=1.0, similarity="dot"),
            in_batch=True,
        ),
        _vectors(
            "distill-kl",
            functools.partial(distill_kl, temperature=2.0),
            least=3,
            targets="scores",
        ),
        *(
            LOSSES[name]
            for name in ("margin-mse", "cosent", "angle", "triplet", "cosine-similarity")
        ),
    )
}
"""Losses of sparse vectors by name, with sentence-transformers' own defaults for these."""

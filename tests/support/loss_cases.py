"""Losses of retrieval with options and inputs, for their goldens and the tests that read them."""

import functools
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).parents[1] / "goldens" / "retrieval_losses.npz"
"""What sentence-transformers computes; made by `tests/goldens/make_retrieval.py`."""

EXAMPLES, DIMENSIONS, GUIDE = 5, 6, 4


class Case(NamedTuple):
    """A loss with options."""

    kind: str
    """`embedding`, `late-interaction`, `reranker` or `sparse`."""
    loss: str
    """Name of the loss."""
    columns: int = 3
    """Columns of texts, query included."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Options of the loss."""
    targets: int | None = None
    """Number of targets of an example; None takes the loss's usual number."""
    dims: tuple[int, ...] = ()
    """Dimensions of Matryoshka."""
    weights: tuple[float, ...] | None = None
    """Weights of these dimensions."""


def _cases() -> dict[str, Case]:
    """All cases by name: that of the loss, a colon, what is particular."""
    ranking = "multiple-negatives-ranking"
    both = ("query_to_doc", "doc_to_query")
    every = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
    modes = ("in_batch_negatives", "hard_negatives", "all_negatives")
    vectors = {
        f"{ranking}:pairs": (ranking, 2),
        f"{ranking}:negatives": (ranking, 4),
        f"{ranking}:dot": (ranking, 3, {"similarity": "dot", "scale": 0.7}),
        f"{ranking}:symmetric": (
            *(ranking, 2),
            {"directions": both, "partition_mode": "per_direction", "scale": 3.0},
        ),
        f"{ranking}:both": (ranking, 3, {"directions": both, "scale": 3.0}),
        f"{ranking}:queries": (ranking, 2, {"directions": every[:2], "scale": 5.0}),
        f"{ranking}:every": (ranking, 4, {"directions": every, "scale": 5.0}),
        **{
            f"{ranking}:{mode}": (
                *(ranking, 4),
                {"hardness_mode": mode, "hardness_strength": 5.0, "scale": 4.0},
            )
            for mode in modes
        },
        f"{ranking}:matryoshka": (ranking, 3, {}, None, (6, 3, 2), (1.0, 0.5, 0.25)),
        "gist:pairs": ("gist", 2, {"temperature": 0.5}),
        "gist:triplets": ("gist", 3),
        "gist:absolute": ("gist", 3, {"margin": 0.2, "temperature": 0.3}),
        "gist:relative": (
            *("gist", 3),
            {"margin": 0.1, "margin_strategy": "relative", "temperature": 0.3},
        ),
        "gist:documents": ("gist", 3, {"contrast_anchors": False, "temperature": 0.3}),
        "gist:anchors": ("gist", 2, {"contrast_positives": False, "temperature": 0.3}),
        "gist:matryoshka": ("gist", 3, {"temperature": 0.3}, None, (4, 2)),
        "triplet": ("triplet", 3),
        "triplet:cosine": ("triplet", 3, {"distance_metric": "cosine", "triplet_margin": 1.0}),
        "triplet:manhattan": (
            "triplet",
            3,
            {"distance_metric": "manhattan", "triplet_margin": 1.0},
        ),
        "cosent": ("cosent", 2),
        "cosent:dot": ("cosent", 2, {"similarity": "dot", "scale": 0.5}),
        "cosent:matryoshka": ("cosent", 2, {}, None, (6, 2)),
        "angle": ("angle", 2),
        "angle:triplets": ("angle", 3, {}, 0),
        "angle:labelled": ("angle", 4, {"scale": 3.0}, 1),
        "cosine-similarity": ("cosine-similarity", 2),
        "contrastive": ("contrastive", 2),
        "contrastive:euclidean": (
            *("contrastive", 2),
            {"distance_metric": "euclidean", "margin": 4.0},
        ),
        "online-contrastive": ("online-contrastive", 2, {"margin": 0.8}),
        "margin-mse": ("margin-mse", 3, {}, 1),
        "margin-mse:scores": ("margin-mse", 4),
        "margin-mse:cosine": ("margin-mse", 4, {"similarity": "cosine"}, 2),
        "distill-kl": ("distill-kl", 4),
        "distill-kl:temperature": ("distill-kl", 3, {"temperature": 2.0}),
        "distill-kl:temperatures": (
            *("distill-kl", 4),
            {"student_temperature": 3.0, "teacher_temperature": 0.5, "similarity": "cosine"},
        ),
        "embed-distill": ("embed-distill", 2),
        "embed-distill:mse": ("embed-distill", 3, {"distance_metric": "mse"}),
        "embed-distill:l2": ("embed-distill", 2, {"distance_metric": "l2"}),
        "global-orthogonal-regularization": ("global-orthogonal-regularization", 2),
        "global-orthogonal-regularization:sum": (
            *("global-orthogonal-regularization", 3),
            {"aggregation": "sum", "mean_weight": 0.5, "second_moment_weight": 3.0},
        ),
        "embed-distill:matryoshka": ("embed-distill", 2, {}, None, (6, 3)),
    }
    scores = {
        "binary-cross-entropy": ("binary-cross-entropy", 2),
        "binary-cross-entropy:weight": ("binary-cross-entropy", 2, {"pos_weight": 5.0}),
        "mse": ("mse", 2),
        "margin-mse:one": ("margin-mse", 3, {}, 1),
        "margin-mse:all": ("margin-mse", 5),
        f"{ranking}:scores": (ranking, 6),
        f"{ranking}:identity": (ranking, 6, {"activation": "identity", "scale": 1.5}),
        "list-net": ("list-net", 7),
        "list-mle": ("list-mle", 7),
        "list-mle:sorted": ("list-mle", 7, {"respect_input_order": False}),
        "p-list-mle": ("p-list-mle", 7),
        "rank-net": ("rank-net", 7),
        "rank-net:at": ("rank-net", 7, {"k": 2, "sigma": 0.5, "reduction_log": "natural"}),
        "lambda-loss": ("lambda-loss", 7),
        **{
            f"lambda-loss:{scheme}": ("lambda-loss", 7, {"weighting_scheme": scheme, "k": 3})
            for scheme in ("none", "ndcg-loss1", "ndcg-loss2", "lambda-rank")
        },
        "lambda-loss:mu": ("lambda-loss", 7, {"mu": 2.5, "sigma": 1.5}),
        "adr-mse": ("adr-mse", 7, {"alpha": 2.0}),
    }
    every_score = {
        f"{ranking}:late": (ranking, 3),
        f"{ranking}:late-scale": (ranking, 2, {"scale": 0.5}),
        "margin-mse:late": ("margin-mse", 4),
        "margin-mse:late-margins": ("margin-mse", 4, {}, 2),
        "distill-kl:late": ("distill-kl", 4),
        "distill-kl:late-temperatures": (
            *("distill-kl", 4),
            {"student_temperature": 0.5, "teacher_temperature": 2.0},
        ),
        "distill-kl:late-normalized": ("distill-kl", 4, {"normalize_scores": True}),
    }
    columns = {ranking: 3, "margin-mse": 4, "distill-kl": 4, "triplet": 3, "flops": 4}
    pairs = ("cosent", "angle", "cosine-similarity")
    sparse = {f"sparse:{name}": (name, columns.get(name, 2)) for name in (*columns, *pairs)}
    return {
        **{name: Case("embedding", *case) for name, case in vectors.items()},
        **{name: Case("late-interaction", *case) for name, case in every_score.items()},
        **{name: Case("reranker", *case) for name, case in scores.items()},
        **{name: Case("sparse", *case) for name, case in sparse.items()},
    }


CASES = _cases()

UNLABELLED = (
    *("multiple-negatives-ranking", "gist", "triplet", "embed-distill"),
    *("global-orthogonal-regularization", "flops"),
)
QUERY_FLOPS, DOCUMENT_FLOPS = 0.5, 0.3
"""Weights of the regularization in the case `sparse:flops`, beside the ranking."""

SCORED = ("margin-mse", "distill-kl")


def targets(name: str) -> int:
    """Number of targets of an example of a case."""
    case = CASES[name]
    if case.targets is not None:
        return case.targets
    if case.loss in UNLABELLED:
        return 0
    return case.columns - 1 if case.kind == "reranker" or case.loss in SCORED else 1


def loss_of(name: str) -> Callable[..., Any]:
    """Our loss of a case, a function of columns, targets and what exists of them."""
    from modernbert_jax.train.retrieval import losses  # the script that makes goldens lacks it

    case = CASES[name]
    if case.loss == "global-orthogonal-regularization":
        regularizer = losses.global_orthogonal_regularization
        return functools.partial(
            losses.LossKind(name=case.loss, function=regularizer), **case.options
        )
    if case.loss == "flops":
        return _regularized
    kind = losses.TABLES[case.kind][case.loss]
    kind = kind.matryoshka(case.dims, case.weights) if case.dims else kind
    return functools.partial(kind, **case.options)


def _regularized(columns: Any, targets: None = None, valid: Any = None, mask: None = None) -> Any:
    """Sparse ranking with the FLOPS regularization of queries and documents."""
    from modernbert_jax.train.retrieval import losses

    exists = np.broadcast_to(True if valid is None else valid, columns.shape[:2])
    query = losses.flops(columns[:1], exists[:1])
    documents = losses.flops(columns[1:], exists[1:])
    ranking = losses.SPARSE_LOSSES["multiple-negatives-ranking"](columns, valid=valid)
    return ranking + QUERY_FLOPS * query + DOCUMENT_FLOPS * documents


class Inputs(NamedTuple):
    """What a case is computed from."""

    columns: np.ndarray
    """Vectors [C, N, E], or scores [K, N] or [K, N, N]; float32."""
    targets: np.ndarray | None
    """Float32 [N, M]."""
    guide: np.ndarray | None
    """A guide's vectors, float32 [C, N, G]."""
    mask: np.ndarray | None
    """Documents that exist, of lists of different lengths, bool [K, N]."""


def golden() -> dict[str, tuple[float, np.ndarray]]:
    """Read the value and the gradient of each case."""
    file, end, results = np.load(FILE), 0, {}
    for name, value in zip(file["names"], file["values"], strict=True):
        shape = inputs(str(name)).columns.shape
        start, end = end, end + int(np.prod(shape))
        results[str(name)] = float(value), file["gradients"][start:end].reshape(shape)
    return results


def inputs(name: str, seed: int = 0) -> Inputs:
    """Draw the inputs of a case by its name; goldens have seed 0."""
    case, count = CASES[name], targets(name)
    rng = np.random.default_rng(zlib.crc32(name.encode()) + seed)
    shape = (case.columns - 1, EXAMPLES)
    lists = case.columns == 7
    binary = case.loss in ("binary-cross-entropy", "contrastive", "online-contrastive")
    wanted = rng.normal(size=(EXAMPLES, count))
    if lists:
        wanted = rng.integers(0, 4, wanted.shape)
    elif binary or case.loss == "angle":
        wanted = np.arange(wanted.size).reshape(wanted.shape) % 2
    elif count == 1:
        wanted = rng.integers(0, 3, wanted.shape) / 2  # with ties
    lengths = np.array([6, 2, 4, 6, 1])
    shapes = {
        "embedding": (case.columns, EXAMPLES, 6),
        "late-interaction": (*shape, EXAMPLES),
        "reranker": shape,
        "sparse": (case.columns, EXAMPLES, 6),
    }
    columns = rng.normal(size=shapes[case.kind])
    if case.kind in ("embedding", "sparse"):
        columns[1] += columns[0]  # the positive is the closest more often than not
    if case.kind == "sparse":
        columns = np.maximum(columns, 0)
    guide = columns[..., :GUIDE] + rng.normal(size=(*columns.shape[:-1], GUIDE)) * 0.5
    if case.loss == "embed-distill":
        guide = rng.normal(size=columns.shape)
    float_ = np.float32
    return Inputs(
        columns.astype(float_),
        wanted.astype(float_) if count else None,
        guide.astype(float_) if case.loss in ("gist", "embed-distill") else None,
        np.arange(6)[:, None] < lengths if lists else None,
    )

"""Make the goldens of retrieval's losses from sentence-transformers 6.

    .venv-parity/bin/python tests/goldens/make_retrieval.py

Holds `names` of all cases of `loss_cases`, the `values` of their losses, and the `gradients` with
respect to vectors or scores, one after the other. Computed in float64; losses of lists in float32.
PyLate's scaling of scores, which sentence-transformers lacks, is written out.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import loss_cases
import numpy as np
import torch
from loss_cases import CASES, Case, Inputs
from sentence_transformers import CrossEncoder, util
from sentence_transformers.cross_encoder import losses as of_scores
from sentence_transformers.multi_vector_encoder import losses as of_tokens
from sentence_transformers.sentence_transformer import losses as of_vectors
from sentence_transformers.sentence_transformer.losses import gist_embed
from sentence_transformers.sparse_encoder import losses as of_sparse
from torch import nn

PAIRS = {"cosine": util.pairwise_cos_sim, "dot": util.pairwise_dot_score}
MATRICES = {"cosine": util.cos_sim, "dot": util.dot_score}
SCHEMES = {
    "none": of_scores.NoWeightingScheme,
    "ndcg-loss1": of_scores.NDCGLoss1Scheme,
    "ndcg-loss2": of_scores.NDCGLoss2Scheme,
    "lambda-rank": of_scores.LambdaRankScheme,
    "ndcg-loss2++": of_scores.NDCGLoss2PPScheme,
}


class Vectors(nn.Module):
    """A model whose vectors are in its input."""

    tokenizer = SimpleNamespace(get_vocab=dict)
    max_seq_length = 8

    def __init__(self, key: str):
        super().__init__()
        self.key = key

    def forward(self, features: dict[str, Any]) -> dict[str, Any]:
        return features | {"sentence_embedding": features[self.key]}

    def get_embedding_dimension(self) -> int:
        return loss_cases.DIMENSIONS


class Pairs(CrossEncoder):
    """A reranker that scores pairs of numbers, (query, document), from a table [K, N]."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self, scores: torch.Tensor):
        nn.Module.__init__(self)
        self.table = scores

    def preprocess(self, pairs: list[tuple[str, str]], **_: Any) -> dict[str, torch.Tensor]:
        return {"pairs": torch.tensor([[int(q), int(d)] for q, d in pairs])}

    def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        query, document = features["pairs"].T
        return {"scores": self.table[document, query][:, None]}


def module_of(case: Case) -> nn.Module:
    """The peer's loss of vectors, as a module."""
    options, model = dict(case.options), Vectors("vector")
    if "similarity" in options:
        table = MATRICES if case.loss == "multiple-negatives-ranking" else PAIRS
        options["similarity_fct"] = table[options.pop("similarity")]
    metric = options.get("distance_metric", "")
    if case.loss == "triplet" and metric:
        metrics = of_vectors.TripletDistanceMetric
        options["distance_metric"] = getattr(metrics, metric.upper())
    if case.loss == "contrastive" and metric:
        metrics = of_vectors.SiameseDistanceMetric
        options["distance_metric"] = getattr(metrics, metric.upper())
    classes: dict[str, Callable[..., nn.Module]] = {
        "multiple-negatives-ranking": of_vectors.MultipleNegativesRankingLoss,
        "triplet": of_vectors.TripletLoss,
        "cosent": of_vectors.CoSENTLoss,
        "angle": of_vectors.AnglELoss,
        "cosine-similarity": of_vectors.CosineSimilarityLoss,
        "contrastive": of_vectors.ContrastiveLoss,
        "online-contrastive": of_vectors.OnlineContrastiveLoss,
        "margin-mse": of_vectors.MarginMSELoss,
        "distill-kl": of_vectors.DistillKLDivLoss,
        "embed-distill": of_vectors.EmbedDistillLoss,
        "global-orthogonal-regularization": of_vectors.GlobalOrthogonalRegularizationLoss,
        "gist": lambda model, **options: of_vectors.GISTEmbedLoss(
            model, Vectors("guide"), **options
        ),
    }
    gist_embed.PreTrainedTokenizerBase = SimpleNamespace
    loss = classes[case.loss](model, **options)
    if case.dims:
        weights = None if case.weights is None else list(case.weights)
        loss = of_vectors.MatryoshkaLoss(model, loss, list(case.dims), weights)
    return loss


def loss_of_columns(case: Case, given: Inputs, columns: torch.Tensor) -> torch.Tensor:
    """The peer's loss of vectors [C, N, E]."""
    targets = None if given.targets is None else torch.from_numpy(given.targets).double()
    if targets is not None and targets.shape[1] == 1:
        targets = targets[:, 0]
    features = [{"vector": column} for column in columns]
    if given.guide is not None:
        guide = torch.from_numpy(given.guide).double()
        for one, vectors in zip(features, guide, strict=True):
            one["guide"] = vectors
        if case.loss == "embed-distill":
            targets = guide.transpose(0, 1)
    result = module_of(case)(features, targets)
    return sum(result.values()) if isinstance(result, dict) else result  # parts by name


def loss_of_sparse(case: Case, given: Inputs, columns: torch.Tensor) -> torch.Tensor:
    """The peer's loss of sparse vectors [C, N, E]."""
    model = Vectors("vector")
    name = {
        "multiple-negatives-ranking": "MultipleNegativesRanking",
        "flops": "MultipleNegativesRanking",
        "margin-mse": "MarginMSE",
        "distill-kl": "DistillKLDiv",
        "cosent": "CoSENT",
        "angle": "AnglE",
        "triplet": "Triplet",
        "cosine-similarity": "CosineSimilarity",
    }[case.loss]
    targets = None if given.targets is None else torch.from_numpy(given.targets).double()
    if targets is not None and targets.shape[1] == 1:
        targets = targets[:, 0]
    loss = getattr(of_sparse, f"Sparse{name}Loss")(model)
    value = loss.compute_loss_from_embeddings(list(columns), targets)
    if case.loss == "flops":
        penalty = of_sparse.FlopsLoss(model).compute_loss_from_embeddings
        value = value + loss_cases.QUERY_FLOPS * penalty(columns[0])
        value = value + loss_cases.DOCUMENT_FLOPS * penalty(torch.cat(list(columns[1:])))
    return sum(value.values()) if isinstance(value, dict) else value


def loss_of_scores(case: Case, given: Inputs, scores: torch.Tensor) -> torch.Tensor:
    """The peer's loss of a reranker's scores [K, N]."""
    options, model = dict(case.options), Pairs(scores)
    documents, examples = scores.shape
    queries = [str(n) for n in range(examples)]
    if case.loss == "multiple-negatives-ranking":
        if options.pop("activation", "") == "identity":
            options["activation_fn"] = nn.Identity()
        loss = of_scores.MultipleNegativesRankingLoss(model, **options)
        return loss.calculate_loss(list(scores), examples)
    targets = torch.from_numpy(given.targets)
    if case.loss in ("binary-cross-entropy", "mse", "margin-mse"):
        if "pos_weight" in options:
            options["pos_weight"] = torch.tensor(options["pos_weight"])
        name = {"mse": "MSELoss", "margin-mse": "MarginMSELoss"}.get(case.loss)
        loss = getattr(of_scores, name or "BinaryCrossEntropyLoss")(model, **options)
        columns = [[str(k)] * examples for k in range(documents)]
        return loss([queries, *columns], targets[:, 0] if targets.shape[1] == 1 else targets)
    if case.loss == "lambda-loss":
        scheme = SCHEMES[options.pop("weighting_scheme", "ndcg-loss2++")]
        mu = {"mu": options.pop("mu")} if "mu" in options else {}
        options["weighting_scheme"] = scheme(**mu)
    name = {
        "list-net": "ListNetLoss",
        "list-mle": "ListMLELoss",
        "p-list-mle": "PListMLELoss",
        "rank-net": "RankNetLoss",
        "lambda-loss": "LambdaLoss",
        "adr-mse": "ADRMSELoss",
    }[case.loss]
    lengths = given.mask.sum(0)
    lists = [[str(k) for k in range(length)] for length in lengths]
    labels = [row[:length] for row, length in zip(targets, lengths, strict=True)]
    return getattr(of_scores, name)(model, **options)([queries, lists], labels)


class Tokens(nn.Module):
    """A late-interaction model whose vectors are not looked at."""

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, torch.Tensor]:
        count = len(features["numbers"])
        mask = torch.ones(count, 1, dtype=torch.int64)
        return {"token_embeddings": torch.zeros(count, 1, 1), "attention_mask": mask}


def loss_of_every_score(case: Case, given: Inputs, scores: torch.Tensor) -> torch.Tensor:
    """The peer's loss of late interaction from the scores [K, N, N] of all documents."""
    options, (documents, examples, _) = dict(case.options), scores.shape
    own = scores.diagonal(dim1=1, dim2=2).T
    if options.pop("normalize_scores", False):
        least, most = own.min(1, keepdim=True).values, own.max(1, keepdim=True).values
        own = (own - least) / (most - least + 1e-8)
    features = [{"numbers": torch.arange(examples)}] * (documents + 1)
    if case.loss == "multiple-negatives-ranking":
        # All documents of a query stand together.
        table = scores.permute(2, 1, 0).reshape(examples, -1)
        options["similarity_fct"] = lambda *_, **__: table
        return of_tokens.MultiVectorMultipleNegativesRankingLoss(Tokens(), **options)(features)
    targets = torch.from_numpy(given.targets).double()
    if case.loss == "distill-kl":
        options["similarity_fct"] = lambda *_, **__: own
        return of_tokens.MultiVectorDistillKLDivLoss(Tokens(), **options)(features, targets)
    columns = iter(own.T)
    options["similarity_fct"] = lambda *_, **__: next(columns)
    return of_tokens.MultiVectorMarginMSELoss(Tokens(), **options)(features, targets)


def of_case(name: str, given: Inputs) -> tuple[float, np.ndarray]:
    """The loss of a case and its gradient with respect to vectors or scores, float32."""
    case = CASES[name]
    columns = torch.from_numpy(given.columns)
    if given.mask is None:
        columns = columns.double()
    columns.requires_grad_()
    compute = {
        "embedding": loss_of_columns,
        "late-interaction": loss_of_every_score,
        "reranker": loss_of_scores,
        "sparse": loss_of_sparse,
    }
    loss = compute[case.kind](case, given, columns)
    loss.backward()
    return loss.item(), columns.grad.numpy().astype(np.float32)


def main() -> None:
    results = {name: of_case(name, loss_cases.inputs(name)) for name in CASES}
    for name, (value, gradient) in results.items():
        print(f"{name}: {value:.6f}, gradient {np.linalg.norm(gradient):.6f}")
    np.savez_compressed(
        loss_cases.FILE,
        names=np.array([*results]),
        values=np.array([value for value, _ in results.values()]),
        gradients=np.concatenate([gradient.reshape(-1) for _, gradient in results.values()]),
    )


if __name__ == "__main__":
    main()

"""The configuration of a loss: its name and those of its options that are not at their default."""

import dataclasses
from typing import Any, Literal

from modernbert_jax import ranges
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.ranges import Count, Natural, NonNegative, Positive

from .kind import LossKind
from .table import LATE_LOSSES, LOSSES, RERANKER_LOSSES, SPARSE_LOSSES

TABLES = {
    "embedding": LOSSES,
    "late-interaction": LATE_LOSSES,
    "reranker": RERANKER_LOSSES,
    "sparse": SPARSE_LOSSES,
}
"""Losses by name, by the kind of a run."""

DEFAULTS = {
    "embedding": "multiple-negatives-ranking",
    "late-interaction": "multiple-negatives-ranking",
    "reranker": "binary-cross-entropy",
    "sparse": "multiple-negatives-ranking",
}
"""The loss of each kind of run whose configuration names none."""


_OWN = ("name", "learn_scale", "orthogonality")
"""Fields that are no options of a loss."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LossConfig:
    """A loss and its options. An empty option has the loss's own default.

    Options that the loss does not have are refused.
    """

    name: str = ""
    """Name of the loss; empty is multiple-negatives-ranking, for rerankers binary-cross-entropy."""
    learn_scale: bool = False
    """Whether the scale, or the inverse of the temperature, is a parameter that is trained."""

    orthogonality: NonNegative = 0.0
    """Weight of global orthogonal regularization beside a loss of vectors, which spreads different
    texts over all directions; 0 adds none. sentence-transformers has 1."""

    scale: Positive | None = None
    """Factor of similarities or scores, 1 / temperature; None is 20, for rerankers 10, for late
    interaction and sparse vectors 1."""
    temperature: Positive | None = None
    """Divisor of similarities; None is 0.01 for gist, 1 for distill-kl, there 2 for sparse
    vectors."""
    student_temperature: Positive | None = None
    """Divisor of the trained model's scores in distill-kl; None is `temperature`."""
    teacher_temperature: Positive | None = None
    """Divisor of the teacher's scores in distill-kl; None is `temperature`."""
    normalize_scores: bool | None = None
    """Whether distill-kl of late interaction scales the scores of a query's documents to 0..1
    first, as PyLate does by default; None is False."""
    similarity: Literal["cosine", "dot", "euclidean", "manhattan"] | None = None
    """Similarity of two vectors in the loss; None is cosine, for margin-mse and distill-kl dot,
    for sparse vectors in multiple-negatives-ranking, too."""
    distance_metric: Literal["cosine", "euclidean", "manhattan", "mse", "l2"] | None = None
    """Distance of two vectors in the loss; None is cosine, for triplet euclidean."""
    directions: tuple[
        Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"], ...
    ] = ()
    """What is ranked against the positive pair in multiple-negatives-ranking; empty is
    `query_to_doc` alone."""
    partition_mode: Literal["joint", "per_direction"] | None = None
    """Whether all directions share one softmax, or each has its own; None is joint."""
    hardness_mode: Literal["in_batch_negatives", "hard_negatives", "all_negatives"] | None = None
    """Negatives whose weight grows with their similarity; None is no negatives."""
    hardness_strength: NonNegative | None = None
    """How much the weight of a negative grows with its similarity; None is 0."""
    margin: NonNegative | None = None
    """Margin of gist, contrastive and online-contrastive; None is 0 for gist, otherwise 0.5."""
    triplet_margin: NonNegative | None = None
    """How much farther than the positive the negative should be; None is 5."""
    margin_strategy: Literal["absolute", "relative"] | None = None
    """Whether gist's margin is a cosine, or a share of the positive's; None is absolute."""
    contrast_anchors: bool | None = None
    """Whether other queries are negatives of a query in gist; None is True."""
    contrast_positives: bool | None = None
    """Whether other positives are negatives of a positive in gist; None is True."""
    block_size: Natural | None = None
    """Queries whose scores are in memory at once; 0 chooses it. Does not change the loss."""

    pos_weight: Positive | None = None
    """Weight of label 1 in binary-cross-entropy; None is 1. The number of negatives per positive
    balances both labels."""
    activation: Literal["sigmoid", "identity"] | None = None
    """Activation of a reranker's scores in multiple-negatives-ranking; None is sigmoid."""
    weighting_scheme: (
        Literal["none", "ndcg-loss1", "ndcg-loss2", "lambda-rank", "ndcg-loss2++"] | None
    ) = None
    """Weights of pairs in lambda-loss; None is ndcg-loss2++."""
    mu: NonNegative | None = None
    """Weight of NDCGLoss2 beside LambdaRank's in `ndcg-loss2++`; None is 10."""
    k: Count | None = None
    """Pairs without a document among the first k are left out of rank-net and lambda-loss; None
    takes all."""
    sigma: Positive | None = None
    """Factor of differences of scores in rank-net and lambda-loss; None is 1."""
    eps: Positive | None = None
    """Smallest ideal DCG that lambda-loss divides by; None is 1e-10."""
    reduction_log: Literal["binary", "natural"] | None = None
    """Base of the logarithm in rank-net and lambda-loss; None is binary."""
    alpha: Positive | None = None
    """Steepness of soft ranks in adr-mse; None is 1."""
    respect_input_order: bool | None = None
    """Whether a list's documents come in the right order in list-mle and p-list-mle; False sorts
    them by their labels, None is True."""

    def __post_init__(self):
        ranges.check(self, "loss.")

    def of(self, kind: str) -> "LossConfig":
        """The same with the name of the loss of a kind of run, if it has none."""
        return self if self.name else dataclasses.replace(self, name=DEFAULTS[kind])

    @property
    def options(self) -> dict[str, Any]:
        """The options that are not empty, as keyword arguments of the loss."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {
            name: value
            for name, value in values.items()
            if name not in _OWN and value not in (None, ())
        }

    @classmethod
    def foreign(cls, kind: str) -> frozenset[str]:
        """Options that no loss of a kind of run has."""
        known = {option for loss in TABLES[kind].values() for option in loss.options}
        every = {
            option for table in TABLES.values() for x in table.values() for option in x.options
        }
        own = set[str]() if kind == "embedding" else {"orthogonality"}
        return frozenset(every - known | own)

    def loss(self, kind: str) -> LossKind:
        """The loss of a kind of run.

        Raises:
            UserError: an unknown loss, or an option that it does not have.
        """
        table, name = TABLES[kind], self.of(kind).name
        if name not in table:
            others = [k for k in TABLES if name in TABLES[k]]
            hint = f"it is one of kind {others[0]}" if others else did_you_mean(name, table)
            raise UserError(f"loss {name!r} is unknown for kind {kind}; {hint}")
        table[name].check_options(self.options)
        if self.learn_scale and not table[name].learned:
            raise UserError(f"loss {name} has no scale or temperature that learn_scale could train")
        if self.orthogonality and kind == "sparse":  # it has a value for every pair of ids
            raise UserError("loss.orthogonality is not for sparse vectors; leave it out")
        return table[name].regularized(self.orthogonality) if self.orthogonality else table[name]

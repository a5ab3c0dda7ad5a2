"""Settings of the comparison with sentence-transformers."""

import dataclasses
import json
from pathlib import Path
from typing import Any, ClassVar, Literal

from modernbert_jax import ranges
from modernbert_jax.errors import UserError
from modernbert_jax.ranges import Count, Length, Natural, NonNegative, Positive, Seed, Share

Kind = Literal["embedding", "sparse", "late-interaction", "late-interaction-distilled", "reranker"]
Side = Literal["bm25", "untuned", "ours", "peer", "peer-cached"]

TITLES: dict[Side, str] = {
    "bm25": "BM25",
    "untuned": "untuned",
    "ours": "here",
    "peer": "sentence-transformers",
    "peer-cached": "sentence-transformers, cached",
}
"""Sides with their names in tables."""

QUERY_TOKENS = 32
"""Tokens of a query in late interaction; it is filled up."""

TRAINED: tuple[Side, ...] = ("ours", "peer", "peer-cached")
"""Sides that train, once for each seed."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """What is the same on all sides that train."""

    epochs: Positive = 1.0
    """Passes over the pairs."""
    batch_examples: Count = 64
    """Examples of a step: pairs of a query and its document; of a reranker, pairs with a label; in
    distillation, lists of a query."""
    learning_rate: Positive = 2e-4
    """Peak learning rate of AdamW, which falls linearly to zero."""
    warmup: Share = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: NonNegative = 0.0
    """Weight decay of AdamW, as in PyTorch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseTraining(Training):
    """The same of sparse encoders, with the regularization that makes their vectors sparse."""

    query_flops: NonNegative = 5e-5
    """Largest weight of the FLOPS regularization of queries; it rises over a third of the steps."""
    document_flops: NonNegative = 3e-5
    """Largest weight of the FLOPS regularization of documents."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Data, model, sides and sizes of a comparison."""

    FREE: ClassVar[tuple[str, ...]] = (
        *("output", "peer_python", "memory", "seeds", "sides", "kinds", "keep_models"),
    )
    """Fields that may change when a comparison is resumed: they do not change its results."""

    data: tuple[str, ...]
    """BEIR folders with train, dev and test, as `bench retrieval-data` makes them."""
    model: str
    """Checkpoint that all sides start from."""
    output: str = "retrieval-bench"
    """Folder for results and models. The same command in the same folder resumes."""
    kinds: tuple[Kind, ...] = ("embedding", "reranker")
    """What is trained: single-vector, sparse and late-interaction models with multiple negatives;
    late interaction distilled from the scores of a reranker, and rerankers with binary
    cross-entropy, both on BM25's negatives."""
    sides: tuple[Side, ...] = ("bm25", "untuned", "ours", "peer")
    """Sides to compare. `peer-cached` is sentence-transformers' gradient cache, for batches that do
    not fit; rerankers and distillation have none."""
    seeds: tuple[Seed, ...] = (0, 1, 2)
    """Seeds of the order of examples, one training of each side for each."""
    embedding: Training = dataclasses.field(default_factory=Training)
    sparse: SparseTraining = dataclasses.field(default_factory=SparseTraining)
    late_interaction: Training = dataclasses.field(default_factory=Training)
    late_interaction_distilled: Training = dataclasses.field(default_factory=Training)
    reranker: Training = dataclasses.field(default_factory=Training)
    max_length: Length = 256
    """Longest text in tokens; of a reranker, longest pair."""
    microbatch_tokens: Count = 8192
    """Tokens in memory at once, here and in sentence-transformers' gradient cache."""
    negatives: Count = 4
    """BM25's negatives of a pair for rerankers and distillation, from its first 100."""
    teacher: str = ""
    """Reranker whose scores late interaction is distilled from, such as
    OUTPUT/DATA/reranker/models/ours-SEED of another comparison with --keep-models."""
    examples: Natural = 0
    """Training pairs; 0 takes all."""
    queries: Natural = 0
    """Queries of the test; 0 takes all."""
    groups: Count = 8
    """Groups of pairs of dev whose loss is the probe; in distillation, of their lists."""
    group_size: Count = 32
    """Pairs in a group of the probe."""
    probes: Count = 5
    """Steps after which the probe is evaluated, at equal distances; the start comes before."""
    memory: NonNegative = 0.0
    """Largest resident memory of a training process in GB (10^9 bytes), above which it is ended and
    that is the result; 0 sets no limit."""
    keep_models: bool = False
    """Keeps the trained models, as OUTPUT/DATA/KIND/models/SIDE-SEED."""
    peer_python: Path | None = None
    """Python with sentence-transformers 6, torch and datasets. None is this one."""

    def __post_init__(self):
        ranges.check(self, "--")
        if not self.data:
            raise UserError("data is empty; name the folders to train on with --data")
        if "late-interaction-distilled" in self.kinds and not self.teacher:
            raise UserError(
                "late-interaction-distilled has no teacher; name a reranker with --teacher"
            )

    def training(self, kind: Kind) -> Training:
        """The settings of a kind."""
        return getattr(self, kind.replace("-", "_"))

    def to_json(self) -> dict[str, Any]:
        """The settings as a JSON object."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}
        values |= {"peer_python": str(self.peer_python or "")}
        return json.loads(json.dumps(values, default=dataclasses.asdict))

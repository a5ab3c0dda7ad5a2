"""The configuration of a run that trains a model for retrieval."""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any, Literal

from modernbert_jax import ranges
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io import typed_json
from modernbert_jax.io.paths import expanded
from modernbert_jax.ranges import Count, Length, Natural, NonNegative, Positive

from ..examples.config import ExamplesConfig, check_file
from .columns import QUERY, of_column
from .kinds import KINDS, KINDS_OF, Kind
from .losses.config import LossConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrievalConfig(ExamplesConfig):
    """A run on texts that belong together: queries with documents, lists, scores."""

    kind: Kind
    """What is trained."""
    loss: LossConfig = dataclasses.field(default_factory=LossConfig)
    losses: dict[str, LossConfig] = dataclasses.field(default_factory=dict)
    """Losses of data sets by their names, as `--losses.NAME.scale 20`; all others have `loss`.
    Only the scale of `loss` can be learned."""

    train: tuple[str, ...] = ()
    """Training examples: .jsonl, .csv, .tsv (also .gz, .zst, .bz2, .xz), .parquet, .arrow, folders
    of `datasets` or of BEIR. Every path is a data set of its own."""
    train_examples: Natural = 0
    """Number of the first examples of every training data set that are read; 0 reads all."""
    validation: tuple[str, ...] = ()
    """Examples that are evaluated during training and choose the best model."""
    columns: tuple[str, ...] = ()
    """Columns of texts in their order: query, positive, negatives. Empty takes `query`, `positive`,
    `negative...`, or all columns of texts."""
    target: str = ""
    """Column of the label or of the scores of the documents; empty takes `label` or `scores`, if
    there is one, and `none` takes none."""
    queries: str = ""
    """File of texts by id; the first column then holds ids."""
    documents: str = ""
    """File of texts by id; the other columns then hold ids."""
    evaluation: tuple[str, ...] = ()
    """BEIR folders (corpus.jsonl, queries.jsonl, qrels/SPLIT.tsv) that are searched during
    training; the mean of their nDCG@10 chooses the best model."""
    evaluation_split: str = "test"
    """Name of the relevance judgements in `evaluation`."""

    prompts: dict[str, str] = dataclasses.field(default_factory=dict)
    """Texts before the texts of a column: `query "search_query: " document "search_document: "`.
    Keys are roles (`query` is the first column, `document` all others), columns, or
    DATASET.COLUMN, where DATASET is the name of a file without its ending. The exported model has
    them under these names. Its prompts `query` and `document`, which evaluations use, are those of
    the first column of a role where the role has none of its own."""
    include_prompt: bool = True
    """Whether the tokens of the prompt are pooled, too."""
    max_length: Natural = 0
    """Longest text in tokens, with its prompt; longer ones are cut. 0 is the checkpoint's own."""
    lengths: dict[str, Length] = dataclasses.field(default_factory=dict)
    """Longest texts by role, column or DATASET.COLUMN, where they differ from `max_length`."""

    sampling: Literal["proportional", "round-robin"] = "proportional"
    """Order of several data sets, of which every batch holds one: in proportion to their batches,
    or in turn until one is used up."""
    allow_duplicates: bool = False
    """Whether two examples of a batch may share a text, which would then be its own negative."""

    pooling: Literal["checkpoint", "mean", "cls", "max", "lasttoken"] = "checkpoint"
    """Pooling of a text's tokens into its vector; `checkpoint` is the checkpoint's own, or `mean`
    where it has none."""
    normalize: Literal["checkpoint", "yes", "no"] = "checkpoint"
    """Whether vectors are divided by their length at the end."""
    projection_dims: Natural = 0
    """Width of a new dense layer without activation, after the pooling of an embedding model or on
    every token in late interaction; 0 adds none, but a new late-interaction model gets 128."""
    projection_hidden: tuple[Count, ...] = ()
    """Widths of more dense layers before that of `projection_dims`, in late interaction."""
    query_expansion: Literal["checkpoint", "none", "fixed", "min"] = "checkpoint"
    """How queries of late interaction are filled up with mask tokens, whose vectors count: `fixed`
    up to the length of queries, `min` up to `expansion_length` if they are shorter. `checkpoint` is
    the checkpoint's own, or `fixed` for a new model."""
    expansion_length: Count = 32
    """Fewest tokens of a query with `--query-expansion min`."""
    attend_to_expansion: bool | None = None
    """Whether other tokens attend to those mask tokens; None is the checkpoint's own, or no."""
    skiplist: str = "checkpoint"
    """Tokens of documents whose vectors are left out: words with spaces between them,
    `punctuation` or `none`. `checkpoint` is the checkpoint's own, or punctuation for a new
    model."""
    scoring: Literal["maxsim", "mean-maxsim", "xtr"] = "maxsim"
    """Score of a query and a document in late interaction: the sum over the query's tokens of the
    largest similarity with a token of the document, or their mean. `xtr` is the mean over those
    tokens that retrieve one of the document, in training alone."""
    xtr_top_k: Count = 256
    """Tokens of the batch that a query's token retrieves with `--scoring xtr`."""
    similarity: Literal["checkpoint", "cosine", "dot", "euclidean", "manhattan"] = "checkpoint"
    """Similarity of two vectors that the exported model declares; `checkpoint` is the checkpoint's
    own, or `cosine` where it has none."""
    matryoshka_dims: tuple[Count, ...] = ()
    """Numbers of leading dimensions that are trained to be vectors on their own, such as
    `768 256 64`; empty trains whole vectors only."""
    matryoshka_weights: tuple[NonNegative, ...] = ()
    """Weights of the losses of `matryoshka_dims`; empty weighs all by 1."""
    matryoshka_dims_per_step: Natural = 0
    """Numbers of `matryoshka_dims` that are drawn for a step; 0 trains all in every step."""
    head: Literal["checkpoint", "classifier", "modules"] = "checkpoint"
    """What scores pairs in a reranker. `classifier` is transformers' head for one label, which all
    libraries read; `modules` are pooling, dense layer, norm and dense layer, as in the
    ettin-rerankers, for sentence-transformers from 5.4. `checkpoint` keeps a reranker's own, and
    is a classifier for other checkpoints."""
    drawn_negatives: Count = 4
    """Documents of other queries of the batch that a reranker scores for each query with the loss
    multiple-negatives-ranking."""
    query_flops: NonNegative = 5e-5
    """Weight of the FLOPS regularization of queries, which makes sparse vectors sparse; 0 disables
    it."""
    document_flops: NonNegative = 3e-5
    """Weight of the FLOPS regularization of documents; 0 disables it."""
    flops_ramp: ranges.Rate = 1 / 3
    """Share of the run during which both weights rise quadratically from 0."""
    max_active_dims: Natural = 0
    """Number of the largest weights of a sparse vector that the exported model keeps; 0 is the
    checkpoint's own, or all."""
    guide: str = ""
    """Embedding model whose vectors of the training texts the losses `gist` and `embed-distill`
    compare with."""

    batch_examples: Count = 64
    attention_dropout: ranges.Rate = 0.0
    optimizer: Literal["stable_adamw", "adamw"] = "adamw"
    weight_decay: NonNegative = 0.0
    b2: ranges.Rate = 0.999
    eps: Positive = 1e-8
    clip_norm: NonNegative = 1.0
    eval_every: Natural = 500
    """Steps between evaluations, the end apart; 0 evaluates only at the end."""

    def __post_init__(self):
        super().__post_init__()
        if self.kind not in KINDS:
            raise UserError(f"kind is {self.kind!r}; {did_you_mean(str(self.kind), KINDS)}")
        for name in ("train", "validation", "evaluation"):
            paths = tuple(expanded(path) for path in getattr(self, name))
            for path in paths:
                check_file(name, path)
            if len({*paths}) < len(paths):
                raise UserError(f"{name} names a file twice; every file is a data set of its own")
            object.__setattr__(self, name, paths)
        self._expand("queries", "documents", "guide")
        object.__setattr__(self, "loss", self.loss.of(self.kind))
        losses = {name: own.of(self.kind) for name, own in self.losses.items()}
        object.__setattr__(self, "losses", losses)
        guided = [x.name for x in self.every_loss if x.loss(self.kind).guide != "none"]
        if guided and not self.guide:
            raise UserError(f"loss {guided[0]} needs a guide model; name one with --guide")
        if self.guide and not guided:
            raise UserError(f"guide is for gist and embed-distill, not for loss {self.loss.name}")
        if learned := [name for name, own in losses.items() if own.learn_scale]:
            raise UserError(f"losses.{learned[0]}: learn_scale is for loss alone; leave it out")
        self._check_kind()
        dims, weights = self.matryoshka_dims, self.matryoshka_weights
        if weights and len(weights) != len(dims):
            raise UserError(
                f"matryoshka_weights has {len(weights)} numbers; matryoshka_dims has {len(dims)}"
            )
        if self.matryoshka_dims_per_step > len(dims):
            raise UserError(
                f"matryoshka_dims_per_step is {self.matryoshka_dims_per_step}; matryoshka_dims has"
                f" {len(dims)} numbers"
            )
        if len({*dims}) < len(dims):
            raise UserError("matryoshka_dims names a width twice")

    @property
    def hidden(self) -> dict[type, Collection[str]]:
        """Fields of the configuration and its loss that only other kinds of runs have."""
        other = [name for name, kinds in KINDS_OF.items() if self.kind not in kinds]
        return {RetrievalConfig: other, LossConfig: LossConfig.foreign(self.kind)}

    def _check_kind(self) -> None:
        """Raise `UserError` for an option of the other kind that is not at its default."""
        fields = {f.name: f for f in dataclasses.fields(self)}
        for name in self.hidden[RetrievalConfig]:
            field = fields[name]
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            if getattr(self, name) != default:
                raise UserError(f"{name} is not for kind {self.kind}; leave it out")
        if self.kind == "reranker" and {*self.prompts} - {QUERY}:
            raise UserError(
                f"prompts of a reranker are for {QUERY} only, the first text of each pair"
            )

    @property
    def every_loss(self) -> tuple[LossConfig, ...]:
        """All different losses, that of most data sets first."""
        return tuple(dict.fromkeys((self.loss, *self.losses.values())))

    def loss_of(self, dataset: str) -> LossConfig:
        """The loss of a data set."""
        return self.losses.get(dataset, self.loss)

    def with_losses(self, datasets: Iterable[str]) -> "RetrievalConfig":
        """The same with a loss of their own, the default one, for data sets that have none yet."""
        new = {name: LossConfig() for name in datasets}
        return dataclasses.replace(self, losses={**new, **self.losses})

    def prompt(self, dataset: str, column: str, number: int) -> str:
        """The prompt of a column, empty without one; see `of_column`."""
        return of_column(self.prompts, dataset, column, number) or ""

    def length(self, dataset: str, column: str, number: int) -> int:
        """The longest text of a column in tokens, with its prompt; 0 is the checkpoint's own."""
        return of_column(self.lengths, dataset, column, number) or self.max_length


def to_json(config: RetrievalConfig) -> dict[str, Any]:
    """A configuration as a JSON object; `kind` tells what it trains."""
    return typed_json.to_json(config)


def from_json(value: Any, where: str = "config") -> RetrievalConfig:
    """A configuration from JSON; strict about names and types. Raises `UserError`."""
    return typed_json.from_json(RetrievalConfig, value, where)

"""Rerankers as what a run trains: their data, objective, evaluation and files."""

import dataclasses

from jax.sharding import Mesh

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import encoder_of
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.pipeline import IDENTITY, Dense, LayerNorm, Pipeline, Pooling, Step

from . import initial_model, rerank_pairs, rerank_validation, texts
from .batches import Batches
from .columns import QUERY
from .config import RetrievalConfig
from .data import ExampleSet
from .initial_model import InitialModel
from .losses import LossKind
from .objective import RetrievalObjective
from .rerank_evaluation import CollectionReranker
from .rerank_objective import ListObjective, PointwiseObjective
from .rerank_pairs import PairSet
from .rerank_validation import RerankerValidation
from .texts import TextSet
from .trainee import Evaluator, Trainee

CLASSIFIER = "sequence_classification"
"""Head of rerankers without modules."""

_GELU = "torch.nn.modules.activation.GELU"
_SIGMOID = "torch.nn.modules.activation.Sigmoid"


@dataclasses.dataclass(frozen=True)
class Reranker(Trainee):
    """A model that gives a score for each pair of query and document."""

    config: RetrievalConfig
    checkpoint: convert.Checkpoint
    pipeline: Pipeline

    FORMAT = "hf"

    @classmethod
    def open(cls, config: RetrievalConfig) -> "Reranker":
        checkpoint = initial_model.load(config)
        pipeline = pipeline_of(config, checkpoint)
        own = checkpoint.pipeline
        if own is not None and own.layers and own.kind != "reranker":
            # Its layers are those of vectors.
            checkpoint = dataclasses.replace(checkpoint, params=encoder_of(checkpoint.params))
        if not pipeline.steps:
            model = _with_pooling(config, checkpoint.config)
            checkpoint = dataclasses.replace(checkpoint, config=model)
        return cls(config, checkpoint, pipeline)

    @property
    def head(self) -> str:
        return "none" if self.pipeline.steps else CLASSIFIER

    @property
    def loss(self) -> LossKind:
        return self.config.loss.loss(self.config.kind)

    def tokenized(self, dataset: ExampleSet) -> PairSet:
        tokenizer = self.checkpoint.need_tokenizer(self.config.model)
        return rerank_pairs.pairs_of(
            dataset,
            self.loss,
            tokenizer,
            self.model,
            self.pipeline,
            drawn=self.config.drawn_negatives if self.loss.in_batch else 0,
            seed=self.config.seed,
        )

    def sequences(self, columns: int) -> int:
        return columns - 1 + (self.config.drawn_negatives if self.loss.in_batch else 0)

    def objective(self, shape: Shape) -> RetrievalObjective:
        single = self.loss.pointwise and not self.config.losses
        kind = PointwiseObjective if single else ListObjective
        return kind(
            config=self.config,
            model=self.model,
            loss_kind=self.loss,
            documents=shape.documents,
            steps_after=self.pipeline.steps,
        )

    @property
    def whole(self) -> tuple[str, ...]:
        lora = self.config.lora
        if self.pipeline.steps and lora.whole == type(lora).whole:
            return tuple(layer.path for layer in self.pipeline.layers)
        return lora.whole

    def validation(
        self, objective: RetrievalObjective, examples: Batches, mesh: Mesh
    ) -> RerankerValidation:
        return RerankerValidation(objective, examples, mesh)

    def metric(self, dataset: TextSet) -> str:
        return rerank_validation.metric_of(dataset)

    def evaluator(self, start: InitialModel, mesh: Mesh) -> Evaluator:
        return CollectionReranker(start.exported(start.params), mesh, self.config.runtime)


def pipeline_of(config: RetrievalConfig, checkpoint: convert.Checkpoint) -> Pipeline:
    """The reranker's modules, prompts, longest pair, and the activation that its loss asks for.

    Scores of binary cross-entropy are logits of a probability. Those of all other losses are
    scores of any size, which a sigmoid would saturate.

    Raises:
        UserError: a decoder without the head, a pooling that the head does not have, or pairs that
            are longer than the model supports.
    """
    model = checkpoint.config
    texts.check_length("max_length is", config.max_length, model)
    before = checkpoint.pipeline or Pipeline(kind="embedding")
    own = before if before.kind == "reranker" else Pipeline(kind="reranker")
    steps = own.steps
    if config.head == "classifier":
        steps = ()
    elif config.head == "modules" and not steps:
        steps = modules(model)
    if steps:
        steps = _pooled(config, steps)
    elif CLASSIFIER not in (known := names.heads(model)):
        raise UserError(f"{config.model}: has no classifier; {did_you_mean(CLASSIFIER, known)}")
    width = dataclasses.replace(own, steps=steps).width(model.hidden_size)
    if steps and width != 1:
        raise UserError(f"{config.model}: gives {width} scores for a pair; a reranker gives one")
    logits = {x.name for x in config.every_loss} == {"binary-cross-entropy"}
    prompts, default = dict(own.prompts), own.default_prompt
    if QUERY in config.prompts:
        prompts[QUERY], default = config.prompts[QUERY], QUERY
    return dataclasses.replace(
        own,
        steps=steps,
        prompts=prompts,
        default_prompt=default,
        activation=_SIGMOID if logits else IDENTITY,
        max_length=config.max_length or own.max_length,
    )


def modules(model: ModernBertConfig) -> tuple[Step, ...]:
    """The modules of the published ettin-rerankers, for an encoder."""
    width = model.hidden_size
    return (
        Pooling(modes=("lasttoken" if model.causal else "cls",)),
        Dense(
            name="dense_0",
            path="2_Dense",
            in_features=width,
            out_features=width,
            bias=False,
            activation=_GELU,
        ),
        LayerNorm(name="layer_norm_0", path="3_LayerNorm", dimension=width),
        Dense(
            name="dense_1",
            path="4_Dense",
            in_features=width,
            out_features=1,
            activation=IDENTITY,
        ),
    )


def _pooled(config: RetrievalConfig, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Steps with the pooling of the run."""
    first = steps[0]
    assert isinstance(first, Pooling)  # `convert` checks it
    modes = first.modes if config.pooling == "checkpoint" else (config.pooling,)
    pooling = Pooling(modes=modes, include_prompt=first.include_prompt and config.include_prompt)
    return (pooling, *steps[1:])


def _with_pooling(config: RetrievalConfig, model: ModernBertConfig) -> ModernBertConfig:
    """The architecture of a classifier with the pooling of the run."""
    if not config.include_prompt:
        raise UserError("include_prompt is for a reranker with modules; use --head modules")
    if config.pooling == "checkpoint" or (model.causal and config.pooling == "lasttoken"):
        return model
    if model.causal or config.pooling not in ("cls", "mean"):
        known = "lasttoken" if model.causal else "cls or mean"
        raise UserError(f"pooling is {config.pooling!r}; a classifier has {known}")
    return dataclasses.replace(model, classifier_pooling=config.pooling)

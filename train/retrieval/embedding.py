"""Embedding models as what a run trains: their data, objective, evaluation and files."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jax.sharding import Mesh

from modernbert_jax import convert
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.pipeline import Pipeline

from . import initial_model, texts
from .batches import Batches
from .config import RetrievalConfig
from .data import ExampleSet
from .encoding import TextEncoder
from .evaluation import retrieval
from .initial_model import InitialModel
from .losses import LossKind
from .objective import EmbeddingObjective, RetrievalObjective, of_model
from .on_devices import RetrieverOnDevices
from .texts import TextSet
from .trainee import Evaluator, Trainee
from .validation import RankingValidation, metric_of, of_vectors


@dataclasses.dataclass(frozen=True)
class Embedding(Trainee):
    """A model that gives a vector for each text."""

    config: RetrievalConfig
    """The run, with the prompts and the length of the checkpoint where it names none."""
    checkpoint: convert.Checkpoint
    pipeline: Pipeline

    FORMAT = "sentence-transformers"
    ENCODER: ClassVar[type[RetrieverOnDevices]] = TextEncoder
    """What represents the texts of collections during training."""

    @classmethod
    def open(cls, config: RetrievalConfig) -> "Embedding":
        checkpoint = initial_model.load(config)
        pipeline = initial_model.pipeline_of(config, checkpoint)
        return cls(initial_model.resolved(config, checkpoint), checkpoint, pipeline)

    @property
    def loss(self) -> LossKind:
        config = self.config
        loss = config.loss.loss(config.kind)
        if not config.matryoshka_dims:
            return loss
        return loss.matryoshka(
            config.matryoshka_dims,
            config.matryoshka_weights or None,
            config.matryoshka_dims_per_step or -1,
        )

    def prompted(self, named: Mapping[str, str], train: Sequence[ExampleSet]) -> "Embedding":
        roles = initial_model.role_prompts(self.config, named, train)
        config = dataclasses.replace(self.config, prompts={**self.config.prompts, **roles})
        pipeline = initial_model.with_prompts(self.pipeline, roles)
        return dataclasses.replace(self, config=config, pipeline=pipeline)

    def tokenized(self, dataset: ExampleSet) -> TextSet:
        tokenizer = self.checkpoint.need_tokenizer(self.config.model)
        lower = self.pipeline.lower_case
        tokenized = texts.tokenize(self.config, dataset, tokenizer, self.model, lower)
        if self.loss.optional and dataset.targets == "none" and dataset.most_texts > 2:
            # Other data sets of the run may have labels; 1 is that of a positive.
            labels = np.ones((len(dataset), 1), np.float32)
            tokenized = dataclasses.replace(tokenized, targets=labels)
        return tokenized

    def sequences(self, columns: int) -> int:
        return columns

    def objective(self, shape: Shape) -> RetrievalObjective:
        return EmbeddingObjective(
            config=self.config,
            model=self.model,
            loss_kind=self.loss,
            documents=shape.documents,
            steps_after=self.pipeline.steps,
        )

    @property
    def whole(self) -> tuple[str, ...]:
        lora = self.config.lora
        named = () if lora.whole == type(lora).whole else lora.whole
        return (*named, *(layer.path for layer in self.pipeline.layers))

    def validation(
        self, objective: RetrievalObjective, examples: Batches, mesh: Mesh
    ) -> RankingValidation:
        scores = of_vectors(self.pipeline.similarity or "cosine")
        return RankingValidation(objective, examples, mesh, scores)

    def metric(self, dataset: TextSet) -> str:
        return metric_of(dataset.kind)

    def evaluator(self, start: InitialModel, mesh: Mesh) -> Evaluator:
        exported = start.exported(start.params)
        encoder: Any = None

        def evaluate(params: Any, collection: Any) -> dict[str, float]:
            nonlocal encoder
            params = of_model(params)
            if encoder is None:
                runtime = self.config.runtime
                encoder = self.ENCODER.of(exported, mesh, runtime=runtime, params=params)
            return retrieval.evaluate(encoder.using(params), collection)

        return evaluate

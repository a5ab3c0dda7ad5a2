"""What differs between the kinds of retrieval models that a run trains."""

import abc
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from jax.sharding import Mesh

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert.name_rows import Row
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.pipeline import Pipeline

from .. import engine
from . import initial_model
from .batches import Batches
from .config import RetrievalConfig
from .data import Collection, ExampleSet
from .initial_model import InitialModel
from .losses import LossConfig, LossKind
from .objective import SCALE, DatasetLoss, RetrievalObjective
from .texts import TextSet
from .validation import Validation

Evaluator = Callable[[Any, Collection], Mapping[str, float]]
"""Function from parameters and a collection to its metrics by name."""


class Trainee(abc.ABC):
    """A kind of model with its data, objective, evaluation and files, for one run."""

    FORMAT: ClassVar[str]
    """Format in which it is exported."""
    config: RetrievalConfig
    checkpoint: convert.Checkpoint
    """Checkpoint that the run starts from."""
    pipeline: Pipeline
    """Modules after the encoder, as they are exported."""

    @classmethod
    @abc.abstractmethod
    def open(cls, config: RetrievalConfig) -> "Trainee":
        """Load the checkpoint of a run. Raises `UserError` for one that does not suit it."""

    @property
    def model(self) -> ModernBertConfig:
        """The architecture as it is exported."""
        return self.checkpoint.config

    @property
    def head(self) -> str:
        """Head of the exported model, a key of `names.heads(config)`."""
        return "none"

    @property
    def rows(self) -> Mapping[str, Row]:
        """Tensors of the model by name, with the paths of its parameters."""
        return initial_model.rows_of(self.model, self.pipeline, self.head)

    @property
    @abc.abstractmethod
    def loss(self) -> LossKind:
        """The loss of the run."""

    def with_loss_of(self, dataset: str) -> "Trainee":
        """The same for a data set with a loss of its own, as if that were the loss of the run."""
        config: Any = self.config
        if dataset not in config.losses:
            return self
        own = config.losses[dataset]
        guide = config.guide if own.loss(config.kind).guide != "none" else ""
        changed: Any = self
        config = dataclasses.replace(config, loss=own, losses={}, guide=guide)
        return dataclasses.replace(changed, config=config)

    def losses(self, sets: Sequence[TextSet]) -> tuple[DatasetLoss, ...]:
        """The different losses of some data sets; empty where the run has one for all."""
        by_loss: dict[LossConfig, list[TextSet]] = {}
        for dataset in sets if self.config.losses else ():
            by_loss.setdefault(self.config.loss_of(dataset.name), []).append(dataset)
        return tuple(
            DatasetLoss(
                self.with_loss_of(own[0].name).loss,
                loss,
                columns=max(dataset.width for dataset in own),
                targets=max(dataset.targets.shape[1] for dataset in own),
            )
            for loss, own in by_loss.items()
        )

    @property
    @abc.abstractmethod
    def whole(self) -> tuple[str, ...]:
        """Names of the tensors that are trained whole beside adapters; see `Lora.whole`."""

    def begin(self) -> InitialModel:
        """Build the model before the first step."""
        return initial_model.begin(self.config, self.checkpoint, self.pipeline, self.head)

    def prompted(self, named: Mapping[str, str], train: Sequence[ExampleSet]) -> "Trainee":
        """The same with what follows from its data: the prompts of roles, from those of columns.

        Args:
            named: prompts that the user named, by role or column.
            train: data sets of training.
        """
        return self

    @abc.abstractmethod
    def tokenized(self, dataset: ExampleSet) -> TextSet:
        """Tokenize a data set. Raises `UserError` for texts that the model cannot take."""

    @abc.abstractmethod
    def sequences(self, columns: int) -> int:
        """Number of token sequences of an example with so many columns of texts."""

    @abc.abstractmethod
    def objective(self, shape: Shape) -> RetrievalObjective:
        """The objective for microbatches of a shape, without the batches of a run."""

    def partition(self) -> engine.Partition:
        """The trainable subset of the parameters. Raises `UserError`; see `Partition.of_rows`."""
        config = self.config
        return engine.Partition.of_rows(
            self.model,
            self.rows,
            own=[(SCALE,)] if config.loss.learn_scale else [],
            freeze=config.freeze,
            freeze_layers=config.freeze_layers,
            lora=dataclasses.replace(config.lora, whole=self.whole),
        )

    @abc.abstractmethod
    def validation(
        self, objective: RetrievalObjective, examples: Batches, mesh: Mesh
    ) -> Validation:
        """The evaluation of examples during training."""

    @abc.abstractmethod
    def metric(self, dataset: TextSet) -> str:
        """The metric of a validation data set that chooses the best model."""

    @abc.abstractmethod
    def evaluator(self, start: InitialModel, mesh: Mesh) -> Evaluator:
        """The evaluation of collections during training."""

"""What differs between the kinds of retrieval models that a run trains."""

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

from jax.sharding import Mesh

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert.name_rows import Row
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.tokenizer import Tokenizer

from .. import engine
from .batches import Batches
from .config import RetrievalConfig
from .data import Collection, ExampleSet
from .losses import LossKind
from .objective import RetrievalObjective
from .texts import TextSet
from .validation import Validation

Evaluator = Callable[[Any, Collection], Mapping[str, float]]
"""Function from parameters and a collection to its metrics by name."""


class Start(Protocol):
    """A model before training."""

    @property
    def params(self) -> Any:
        """Parameters of the objective without those of the loss, float32 numpy arrays."""

    @property
    def tokenizer(self) -> Tokenizer:
        """The checkpoint's tokenizer."""

    @property
    def new(self) -> tuple[str, ...]:
        """Names of the tensors that start from random values."""

    def exported(self, params: Any) -> convert.Checkpoint:
        """The checkpoint of a model with these parameters."""


class Trainee(abc.ABC):
    """A kind of model with its data, objective, evaluation and files, for one run."""

    FORMAT: ClassVar[str]
    """Format in which it is exported."""
    config: RetrievalConfig
    checkpoint: convert.Checkpoint
    """Checkpoint that the run starts from."""

    @classmethod
    @abc.abstractmethod
    def open(cls, config: RetrievalConfig) -> "Trainee":
        """Load the checkpoint of a run. Raises `UserError` for one that does not suit it."""

    @property
    @abc.abstractmethod
    def model(self) -> ModernBertConfig:
        """The architecture as it is exported."""

    @property
    def head(self) -> str:
        """Head of the exported model, a key of `names.heads(config)`."""
        return "none"

    @property
    @abc.abstractmethod
    def rows(self) -> Mapping[str, Row]:
        """Tensors of the model by name, with the paths of its parameters."""

    @property
    @abc.abstractmethod
    def loss(self) -> LossKind:
        """The loss of the run."""

    @abc.abstractmethod
    def begin(self) -> Start:
        """Build the model before the first step."""

    @abc.abstractmethod
    def tokenized(self, dataset: ExampleSet) -> TextSet:
        """Tokenize a data set. Raises `UserError` for texts that the model cannot take."""

    @abc.abstractmethod
    def sequences(self, columns: int) -> int:
        """Number of token sequences of an example with so many columns of texts."""

    @abc.abstractmethod
    def objective(self, shape: Shape) -> RetrievalObjective:
        """The objective for microbatches of a shape, without the batches of a run."""

    @abc.abstractmethod
    def partition(self) -> engine.Partition:
        """The trainable subset of the parameters. Raises `UserError`; see `Partition.of_rows`."""

    @abc.abstractmethod
    def validation(
        self, objective: RetrievalObjective, examples: Batches, mesh: Mesh
    ) -> Validation:
        """The evaluation of examples during training."""

    @abc.abstractmethod
    def metric(self, dataset: TextSet) -> str:
        """The metric of a validation data set that chooses the best model."""

    @abc.abstractmethod
    def evaluator(self, start: Any, mesh: Mesh) -> Evaluator:
        """The evaluation of collections during training."""

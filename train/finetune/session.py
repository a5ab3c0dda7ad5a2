"""A model and its data, made ready once for any number of runs that share their programs."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.io.progress import phase

from ..engine.hyperparameters import Hyper
from ..engine.partition import Partition
from ..tasks import Example, Task
from . import batches, infer, objectives, shapes, start
from .batches import Batch, TrainingBatches
from .config import FinetuneConfig
from .data import Data, class_weights
from .infer import Predictions
from .objectives import Objective
from .shapes import Shape
from .start import Start
from .step import Learner, State, StepMetrics


def objective(
    task: Task, documents: int, smoothing: float = 0.0, weights: tuple[float, ...] = ()
) -> Objective:
    """What is minimised for a task; rows have at most so many documents."""
    return {
        "classification": lambda: objectives.CrossEntropy("document", smoothing, weights),
        "tokens": lambda: objectives.CrossEntropy("token", smoothing, weights),
        "multilabel": lambda: objectives.BinaryCrossEntropy(task.outputs, weights),
        "regression": objectives.SquaredError,
        "questions": lambda: objectives.Spans(documents),
        "choice": objectives.Choices,
    }[task.kind]()


class Predictor:
    """Runs a model over examples. What is compiled stays with it."""

    def __init__(self, learner: Learner, shape: Shape, mesh: Mesh):
        """With microbatches of one shape; the mesh may be empty."""
        of = learner.objective
        if isinstance(of, objectives.Spans):
            of = objectives.Spans(shape.documents)
        self._learner = dataclasses.replace(learner, objective=of, documents=shape.documents)
        self.shape, self._mesh = shape, mesh
        self._forward = self._learner.forward_step()
        self._kept: dict[int, list] = {}

    def __call__(
        self, trained: Any, fixed: Any, examples: Sequence[Example], keep: bool = False
    ) -> Predictions:
        """What the model says; `keep` holds the packed examples for the next time."""
        of = self._learner.objective
        packed = self._kept.get(id(examples)) or (
            (batches.place(batch, self._mesh), rows)
            for batch, rows in batches.evaluation_batches(examples, self.shape, of)
        )
        if keep:
            packed = self._kept.setdefault(id(examples), list(packed))
        forward = functools.partial(self._forward, trained, fixed)
        return infer.outputs(forward, packed, examples, of.level)


@dataclasses.dataclass
class Session:
    """All that runs with the same model, data and batch size have in common.

    Runs may differ in `learning_rate`, `weight_decay`, `warmup`, `epochs`, `seed` and in how often
    they evaluate; nothing is compiled anew for them.
    """

    config: FinetuneConfig
    mesh: Mesh
    checkpoint: convert.Checkpoint
    data: Data
    learner: Learner
    shape: Shape
    """Of a batch in training."""

    def __post_init__(self):
        self.predict = Predictor(self.learner, self._evaluation_shape(), self.mesh)
        self._shapes: Any = None
        self._initial = None
        self._step = None

    @classmethod
    def open(cls, config: FinetuneConfig, mesh: Mesh) -> "Session":
        """Reads model and data. Raises `UserError`."""
        checkpoint = start.load(config)
        data = Data.read(config, checkpoint.tokenizer)
        task, model = data.task, start.of_task(config, checkpoint.config)
        pieces = shapes.check_mesh(mesh, model.num_attention_heads)
        shape = shapes.choose(
            shapes.lengths_of(data.train),
            config.batch_examples,
            config.microbatch_tokens,
            pieces=pieces,
            coupled=objective(task, 1).coupled,
        )
        weights = class_weights(config, data)
        return cls(
            config,
            mesh,
            checkpoint,
            data,
            Learner(
                config=config,
                model=model,
                outputs=task.outputs,
                objective=objective(task, shape.documents, config.label_smoothing, weights),
                documents=shape.documents,
                partition=Partition.of(
                    model,
                    task.head,
                    task.outputs,
                    freeze=config.freeze,
                    freeze_layers=config.freeze_layers,
                    lora=config.lora,
                ),
            ),
            shape,
        )

    @property
    def model(self) -> ModernBertConfig:
        """The architecture as it is exported."""
        return self.learner.model

    def start(self, seed: int) -> Start:
        """The whole model before the first update of a run with this seed."""
        config = dataclasses.replace(self.config, seed=seed)
        return start.begin(config, self.checkpoint, self.data.task)

    def batches(self, seed: int) -> TrainingBatches:
        """The batches of a run with this seed."""
        return TrainingBatches(
            self.data.train,
            self.config.batch_examples,
            seed,
            self.shape,
            self.learner.objective,
        )

    def initial(self, params: Any, seed: int) -> tuple[State, Any]:
        """`Learner.initial`, every array in the place where it will lie; compiled once."""
        if self._initial is None:
            out = None
            if not self.mesh.empty:
                out = jax.tree.map(lambda x: x.sharding, self.shapes(params))
            self._initial = jax.jit(self.learner.initial, out_shardings=out)
        return self._initial(params, np.uint32(seed))

    def shapes(self, params: Any) -> tuple[State, Any]:
        """Shape, dtype and place of the state, and of the parameters that stay as they are."""
        if self._shapes is None:
            self._shapes = self.learner.shapes(params, self.mesh)
        return self._shapes

    @property
    def compiled(self) -> bool:
        """Whether there is a program for updates."""
        return self._step is not None

    def step(
        self, state: State, fixed: Any, hyper: Hyper, batch: Batch
    ) -> tuple[State, StepMetrics]:
        """One update; the first one is compiled before."""
        batch = batches.place(batch, self.mesh)
        if self._step is None:
            jitted = self.learner.train_step(state)
            with phase("compiling"):
                self._step = jitted.lower(state, fixed, hyper, batch).compile()
        return self._step(state, fixed, hyper, batch)

    def whole(self, trained: Any, fixed: Any) -> Any:
        """The model's parameters, as numpy arrays in every process."""
        return jax.tree.map(jax.device_get, self._join(trained, fixed))

    @functools.cached_property
    def _join(self):
        where = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())
        return jax.jit(self.learner.partition.join, out_shardings=where)

    def _evaluation_shape(self) -> Shape:
        examples = [*self.data.validation, *self.data.test] or self.data.train
        pieces = shapes.check_mesh(self.mesh, self.model.num_attention_heads)
        coupled = self.learner.objective.coupled
        return evaluation_shape(examples, self.config.microbatch_tokens, pieces, coupled)


def evaluation_shape(
    examples: Sequence[Example], most_tokens: int, pieces: tuple[int, int], coupled: bool
) -> Shape:
    """The shape in which all examples, one after another, leave the least empty."""
    lengths = shapes.lengths_of(examples)
    return shapes.choose(lengths, len(lengths), most_tokens, pieces=pieces, coupled=coupled)

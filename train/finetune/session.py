"""A model and its data, made ready once for any number of runs that share their programs."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.inference import shapes
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.io.progress import Progress
from modernbert_jax.sharding import check_mesh

from .. import engine
from ..engine.hyperparameters import rise_and_fall
from ..tasks import Example
from . import batches, infer, initial_model, losses, summary
from .batches import TrainingBatches, lengths_of
from .config import FinetuneConfig, to_json
from .data import Data, class_weights
from .infer import Predictions
from .initial_model import InitialModel, labels_json
from .objective import TaskObjective
from .run import inputs_of


class Predictor:
    """A runner of a model over examples, with its compiled programs."""

    def __init__(self, objective: TaskObjective, shape: Shape, mesh: Mesh):
        """Prepare for microbatches of one shape; the mesh may be empty."""
        loss = objective.task_loss
        if isinstance(loss, losses.Spans):
            loss = losses.Spans(shape.documents)
        objective = dataclasses.replace(objective, task_loss=loss, documents=shape.documents)
        self.shape, self._mesh, self._loss = shape, mesh, loss
        whole = None if mesh.empty else NamedSharding(mesh, P())
        self._forward = jax.jit(objective.predict, out_shardings=whole)
        self._kept: dict[int, list] = {}

    def __call__(self, params: Any, examples: Sequence[Example], keep: bool = False) -> Predictions:
        """Predict examples; `keep` holds them packed for the next time."""
        packed = self._kept.get(id(examples)) or (
            (batches.place(batch, self._mesh), rows)
            for batch, rows in batches.evaluation_batches(examples, self.shape, self._loss)
        )
        if keep:
            packed = self._kept.setdefault(id(examples), list(packed))
        return infer.outputs(
            lambda batch: self._forward(params, batch), packed, examples, self._loss.level
        )


@dataclasses.dataclass
class Session:
    """Data and programs that runs with the same model, data and batch size share.

    Runs may differ in `learning_rate`, `weight_decay`, `warmup`, `epochs`, `seed` and in how often
    they evaluate; nothing is compiled again for them.
    """

    config: FinetuneConfig
    mesh: Mesh
    checkpoint: convert.Checkpoint
    data: Data
    inputs: Mapping[str, Any]
    """Fingerprints of data, model and tokenizer, by name."""
    objective: TaskObjective
    """Without the batches of a run."""
    program: engine.Program
    shape: Shape
    """Shape of a batch in training."""
    predict: Predictor

    @classmethod
    def open(cls, config: FinetuneConfig, mesh: Mesh) -> "Session":
        """Read model and data. Raises `UserError`."""
        checkpoint = initial_model.load(config)
        task = initial_model.fitted(config.task, checkpoint.config)
        config = dataclasses.replace(config, task=task)
        data = Data.read(config, checkpoint.need_tokenizer(config.model))
        inputs = inputs_of(config, checkpoint)
        task, model = data.task, initial_model.of_task(config, checkpoint.config)
        pieces = check_mesh(mesh, model.num_attention_heads)
        grouped = losses.of_task(task, 1).grouped
        most = config.microbatch_tokens
        shape = shapes.choose(
            lengths_of(data.train),
            config.batch_examples,
            most,
            pieces=pieces,
            grouped=grouped,
        )
        weights = class_weights(config, data)
        task_loss = losses.of_task(task, shape.documents, config.label_smoothing, weights)
        config = dataclasses.replace(config, task=task)
        objective = TaskObjective(config, model, task.outputs, task_loss, shape.documents)
        partition = engine.Partition.of(
            model,
            task.head,
            task.outputs,
            freeze=config.freeze,
            freeze_layers=config.freeze_layers,
            lora=config.lora,
        )
        schedule = config.schedule
        learner = engine.Learner(
            objective, config, lambda hyper, step: rise_and_fall(hyper, step, schedule), partition
        )
        evaluated = [*data.validation, *data.test] or data.train
        predict = Predictor(objective, evaluation_shape(evaluated, most, pieces, grouped), mesh)
        program = engine.Program(learner, mesh)
        return cls(config, mesh, checkpoint, data, inputs, objective, program, shape, predict)

    @property
    def model(self) -> ModernBertConfig:
        """The architecture as it is exported."""
        return self.objective.model

    def describe(self) -> None:
        """Print what was read, from process 0."""
        for line in summary.lines(self.config, self.data, self.objective.task_loss):
            Progress(0).say(line)

    def start(self, seed: int) -> InitialModel:
        """The whole model before the first step of a run with this seed."""
        config = dataclasses.replace(self.config, seed=seed)
        return initial_model.begin(config, self.checkpoint, self.data.task)

    def run_objective(self, config: FinetuneConfig) -> TaskObjective:
        """The objective of one run, with its batches and evaluations."""
        task = self.data.task
        notes = {
            "config": to_json(config),
            "model": self.model.to_hf(),
            "head": task.head,
            "extra": labels_json(task) | {"num_labels": task.outputs},
        }
        return dataclasses.replace(
            self.objective,
            config=config,
            training=self.batches(config.seed),
            evaluation=self._evaluate if self.data.validation else None,
            notes=notes,
        )

    def batches(self, seed: int) -> TrainingBatches:
        """The batches of a run with this seed."""
        size, loss = self.config.batch_examples, self.objective.task_loss
        return TrainingBatches(self.data.train, size, seed, self.shape, loss)

    def _evaluate(self, params: Any) -> engine.Evaluation:
        task, examples = self.data.task, self.data.validation
        predictions = self.predict(params, examples, keep=True)
        metrics = task.metrics(examples, predictions.outputs)
        score, loss = metrics[task.best_metric], predictions.loss
        row = {"eval_loss": loss} | {f"eval_{name}": value for name, value in metrics.items()}
        text = f"validation loss {loss:.4f}  {task.best_metric} {score:.4f}"
        return engine.Evaluation(row, score, text)


def evaluation_shape(
    examples: Sequence[Example], most_tokens: int, pieces: tuple[int, int], grouped: bool
) -> Shape:
    """The shape in which all examples, one after another, leave the least empty."""
    lengths = lengths_of(examples)
    return shapes.choose(lengths, len(lengths), most_tokens, pieces=pieces, grouped=grouped)

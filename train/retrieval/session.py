"""A run's model, data and programs, made ready before the first step."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from modernbert_jax import convert
from modernbert_jax.convert import run_checkpoint
from modernbert_jax.errors import UserError, together
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.io import fingerprint
from modernbert_jax.io.progress import Progress
from modernbert_jax.sharding import check_mesh

from .. import engine
from ..engine.hyperparameters import rise_and_fall
from ..examples.run import inputs_of
from . import batches, guide, summary, texts
from .batches import Batches, TrainingBatches
from .config import RetrievalConfig, to_json
from .data import Collection, read_collection
from .embedding import Embedding
from .initial_model import InitialModel
from .late import LateInteractionModel
from .losses import LossKind
from .objective import SCALE, RetrievalObjective
from .reranker import Reranker
from .sampling import Sampler
from .texts import TextSet
from .trainee import Trainee

TRAINEES: dict[str, type[Trainee]] = {
    "embedding": Embedding,
    "late-interaction": LateInteractionModel,
    "reranker": Reranker,
}
"""What each kind of run trains."""

BEST = "ndcg@10"
"""Metric of collections that chooses the best model."""


@dataclasses.dataclass
class Session:
    """Everything that a run needs, read and checked."""

    config: RetrievalConfig
    mesh: Mesh
    trainee: Trainee
    train: Sequence[TextSet]
    validation: Sequence[TextSet]
    collections: Mapping[str, Collection]
    inputs: Mapping[str, Any]
    """Fingerprints of data, model and tokenizer, by name."""
    shape: Shape
    sampler: Sampler
    partition: engine.Partition

    @classmethod
    def open(cls, config: RetrievalConfig, mesh: Mesh) -> "Session":
        """Read model and data. Raises `UserError`."""
        if not config.train:
            raise UserError("train is empty; name a file of examples with --train")
        trainee = TRAINEES[config.kind].open(config)
        pieces = check_mesh(mesh, trainee.model.num_attention_heads)
        if config.guide:
            width = trainee.pipeline.width(trainee.model.hidden_size)
            guide.check(config.guide, trainee.loss, width, config.matryoshka_dims)
        read = [
            texts.read(config, config.train, config.train_examples),
            texts.read(config, config.validation),
        ]
        texts.check_columns(config, [dataset for sets in read for dataset in sets])
        train = [trainee.tokenized(dataset) for dataset in read[0]]
        trainee = trainee.prompted(config.prompts, read[0])
        held_out = [trainee.tokenized(dataset) for dataset in read[1]]
        collections = _collections(config)
        inputs = inputs_of(
            trainee.checkpoint,
            {
                "train": config.train,
                "validation": config.validation,
                **{n: [p] for n in ("queries", "documents") if (p := getattr(config, n))},
                **({"guide": [convert.locate(config.guide)]} if config.guide else {}),
            },
        )
        if collections:
            own = {name: each.fingerprint() for name, each in collections.items()}
            inputs["evaluation"] = fingerprint.of_json(own)
        loss = trainee.loss
        for dataset in (*train, *held_out):
            check(config, dataset, loss)
        sampler = Sampler(
            [dataset.texts for dataset in train],
            config.batch_examples,
            config.seed,
            rule=config.sampling,
            unique=loss.in_batch and not config.allow_duplicates,
            least=2 if loss.in_batch else 1,
        )
        if not sampler.steps(config.epochs):
            raise UserError(
                "no batch has two examples without a common text; give more examples, or allow"
                " duplicates with --allow-duplicates"
            )
        examples, most = config.batch_examples, config.microbatch_tokens
        coupled = not loss.pointwise
        shape = batches.shape_of([*train, *held_out], examples, most, pieces, coupled)
        partition = trainee.partition()
        data = train, held_out, collections
        return cls(config, mesh, trainee, *data, inputs, shape, sampler, partition)

    def describe(self) -> None:
        """Print what was read, from process 0."""
        for line in summary.lines(self.config, self.train, self.validation, self.sampler):
            Progress(0).say(line)

    @property
    def metric(self) -> str:
        """What chooses the best model."""
        if self.collections:
            return f"retrieval_{BEST}"
        kinds = dict.fromkeys(self.trainee.metric(dataset) for dataset in self.validation)
        return " and ".join(kinds) or "none"

    def program(self) -> engine.Program:
        """The compiled programs of the run."""
        schedule = self.config.schedule
        learner = engine.Learner(
            self.trainee.objective(self.shape),
            self.config,
            lambda hyper, step: rise_and_fall(hyper, step, schedule),
            self.partition,
        )
        return engine.Program(learner, self.mesh)

    def objective(self, start: InitialModel, folder: Path) -> RetrievalObjective:
        """The objective of the run, with its batches and evaluations.

        Args:
            start: the model before the first step.
            folder: of the run, for the vectors of a guide.
        """
        objective = self.trainee.objective(self.shape)
        training = TrainingBatches(self._batches(self.train, folder / guide.FOLDER), self.sampler)
        held_out = folder / guide.FOLDER / "validation"
        evaluation = None
        if self.validation or self.collections:
            evaluation = self._evaluation(objective, start, held_out)
        own = [SCALE] if self.config.loss.learn_scale else []
        model = run_checkpoint.facts(start.exported(start.params), own)
        notes = {"config": to_json(self.config), **model}
        return dataclasses.replace(objective, training=training, evaluation=evaluation, notes=notes)

    def _batches(self, sets: Sequence[TextSet], folder: Path) -> Batches:
        """Batches of data sets; all have the same shape."""
        every = (*self.train, *self.validation)
        return Batches(
            sets,
            self.shape,
            self.config.batch_examples,
            targets=max(dataset.targets.shape[1] for dataset in every),
            columns=max(dataset.width for dataset in every),
            guides=guide.guides(self.config.guide, sets, folder) if self.config.guide else (),
        )

    def _evaluation(self, objective: RetrievalObjective, start: InitialModel, folder: Path) -> Any:
        validation = None
        if self.validation:
            examples = self._batches(self.validation, folder)
            validation = self.trainee.validation(objective, examples, self.mesh)
        search = self.trainee.evaluator(start, self.mesh)

        def evaluate(params: Any, step: int) -> engine.Evaluation:
            row: dict[str, Any] = {"eval_loss": None}
            parts = []
            score = float("nan")
            if validation is not None:
                quality = validation(params)
                row = {"eval_loss": quality.loss}
                row |= {f"eval_{name}": x for name, x in quality.metrics.items()}
                score = quality.score
                parts.append(f"validation loss {quality.loss:.4f}")
                parts += [
                    f"{name} {x:.4f}" for name, x in quality.metrics.items() if "/" not in name
                ]
            found = {name: search(params, each) for name, each in self.collections.items()}
            for name, metrics in found.items():
                row |= {f"eval_{metric}/{name}": x for metric, x in metrics.items()}
            if found:
                score = float(np.mean([metrics[BEST] for metrics in found.values()]))
                row[f"eval_retrieval_{BEST}"] = score
                parts.append(f"{BEST} {score:.4f} on {', '.join(found)}")
            return engine.Evaluation(row, score, "  ".join(parts))

        return evaluate


def _collections(config: RetrievalConfig) -> dict[str, Collection]:
    """The collections of `evaluation` by name, checked. Raises `UserError` with all problems."""
    folders: dict[str, str] = {}
    for folder in config.evaluation:
        name = Path(folder).resolve().name
        if name in folders:
            raise UserError(f"evaluation has two folders called {name!r}; rename one of them")
        folders[name] = folder

    def read(folder: str) -> Collection:
        collection = read_collection(folder, config.evaluation_split)
        collection.check()
        return collection

    found = together(*(functools.partial(read, folder) for folder in folders.values()))
    return dict(zip(folders, found, strict=True))


def check(config: RetrievalConfig, dataset: TextSet, loss: LossKind) -> None:
    """Raise `UserError` for a data set that the loss cannot be computed on."""
    try:
        if dataset.kind != "none" and loss.targets == "none":
            raise UserError(
                f"has {'labels' if dataset.kind == 'label' else 'scores'}, which loss {loss.name}"
                " does not read; name another loss, or leave them out with --target none"
            )
        loss.check(
            dataset.columns,
            dataset.targets.shape[1],
            config.loss.options,
            min(config.batch_examples, len(dataset)),
            max(config.matryoshka_dims, default=2),
            drawn=bool(config.matryoshka_dims_per_step),
        )
    except UserError as error:
        raise UserError(f"{dataset.name}: {error}") from None

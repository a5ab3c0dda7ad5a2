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
from .sparse import Sparse
from .texts import TextSet
from .trainee import Trainee

TRAINEES: dict[str, type[Trainee]] = {
    "embedding": Embedding,
    "late-interaction": LateInteractionModel,
    "reranker": Reranker,
    "sparse": Sparse,
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
            losses = [loss.loss(config.kind) for loss in config.every_loss]
            guide.check(config.guide, losses, width, config.matryoshka_dims)
        *read, collections = together(
            lambda: texts.read(config, config.train, config.train_examples),
            lambda: texts.read(config, config.validation),
            lambda: _collections(config),
        )
        texts.check_names(config, [dataset for sets in read for dataset in sets])
        train = [trainee.with_loss_of(data.name).tokenized(data) for data in read[0]]
        trainee = trainee.prompted(config.prompts, read[0])
        held_out = [trainee.with_loss_of(data.name).tokenized(data) for data in read[1]]
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
        losses = [trainee.with_loss_of(dataset.name).loss for dataset in (*train, *held_out)]
        sets = zip((*train, *held_out), losses, strict=True)
        together(*(functools.partial(check, config, *each) for each in sets))
        in_batch = [trainee.with_loss_of(dataset.name).loss.in_batch for dataset in train]
        sampler = Sampler(
            [dataset.texts for dataset in train],
            config.batch_examples,
            config.seed,
            rule=config.sampling,
            unique=[own and not config.allow_duplicates for own in in_batch],
            least=[2 if own else 1 for own in in_batch],
        )
        if not sampler.steps(config.epochs):
            raise UserError(
                "no batch has two examples without a common text; give more examples, or allow"
                " duplicates with --allow-duplicates"
            )
        examples, most = config.batch_examples, config.microbatch_tokens
        coupled = trainee.objective(Shape(rows=1, length=1, documents=1)).coupled
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
            self._objective(self.train),
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
        objective = self._objective(self.train)
        training = TrainingBatches(
            self._batches(self.train, folder / guide.FOLDER),
            self.sampler,
            self.sampler.steps(self.config.epochs),
        )
        held_out = folder / guide.FOLDER / "validation"
        evaluation = None
        if self.validation or self.collections:
            evaluation = self._evaluation(start, held_out)
        own = [SCALE] if self.config.loss.learn_scale else []
        model = run_checkpoint.facts(start.exported(start.params), own)
        notes = {"config": to_json(self.config), **model}
        return dataclasses.replace(objective, training=training, evaluation=evaluation, notes=notes)

    def _objective(self, sets: Sequence[TextSet]) -> RetrievalObjective:
        """The objective for some data sets, with their losses and without batches."""
        objective = self.trainee.objective(self.shape)
        return dataclasses.replace(objective, losses=self.trainee.losses(sets))

    def _batches(self, sets: Sequence[TextSet], folder: Path) -> Batches:
        """Batches of data sets; all have the same shape."""
        every = (*self.train, *self.validation)
        own = [self.config.loss_of(dataset.name) for dataset in sets]
        guided = [x.loss(self.config.kind).guide != "none" for x in own]
        taught = [dataset for dataset, takes in zip(sets, guided, strict=True) if takes]
        found = iter(guide.guides(self.config.guide, taught, folder) if taught else ())
        known = [loss.config for loss in self.trainee.losses(sets)]
        return Batches(
            sets,
            self.shape,
            self.config.batch_examples,
            targets=max(dataset.targets.shape[1] for dataset in every),
            columns=max(dataset.width for dataset in every),
            guides=[next(found) if takes else None for takes in guided],
            losses=[known.index(x) for x in own] if known else (),
        )

    def _evaluation(self, start: InitialModel, folder: Path) -> Any:
        validation = None
        if self.validation:
            objective = self._objective(self.validation)
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
            config.loss_of(dataset.name).options,
            min(config.batch_examples, len(dataset)),
            max(config.matryoshka_dims, default=2),
            drawn=bool(config.matryoshka_dims_per_step),
        )
    except UserError as error:
        raise UserError(f"{dataset.name}: {error}") from None

"""The objective of fine-tuning: a classifier on the encoder learns a task from examples."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.heads import Classifier, document_pooling, pool
from modernbert_jax.packing import Rows
from modernbert_jax.sharding import constrain

from .. import engine
from ..examples import packing
from ..examples.objective import ExamplesObjective
from . import batches
from .batches import ExampleBatch, TrainingBatches
from .config import FinetuneConfig
from .losses import TaskLoss


class ExampleRows(NamedTuple):
    """Examples in packed rows [B, T], with their targets."""

    rows: Rows
    targets: jax.Array
    """[B, ...], as the task's loss has them."""
    weights: jax.Array
    """float32 [B, S] or [B, T]."""
    documents: jax.Array
    """int32 [B, S]: numbers of the documents, each with its own in the batch."""
    key: jax.Array | None
    """For dropout, the same in all microbatches; None is none."""


@dataclasses.dataclass(frozen=True, eq=False)
class TaskObjective(ExamplesObjective):
    """Classify packed documents or their tokens.

    What is dropped of a document follows from its number in the batch, wherever it is packed.
    """

    config: FinetuneConfig
    model: ModernBertConfig
    """The architecture as it is exported."""
    outputs: int
    task_loss: TaskLoss
    documents: int
    """Documents in a row, at most."""
    training: TrainingBatches | None = None
    """Batches of a run; None compiles or predicts only."""
    evaluation: Callable[[Any], engine.Evaluation | None] | None = None
    """Function that evaluates the whole model's parameters."""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Facts of the model for its checkpoints."""

    place = staticmethod(batches.place)

    @property
    def name(self) -> str:
        return self.config.task.kind

    @property
    def independent_rows(self) -> bool:
        return not self.task_loss.grouped

    @property
    def steps(self) -> int:
        return self.batches.steps(self.config.epochs)

    @property
    def eval_every(self) -> int:
        return max(1, round(self.config.eval_every * self.batches.per_epoch))

    def init(self, key: jax.Array) -> Any:
        return engine.init_params(Classifier(self.model, self.config.runtime, self.outputs), key)

    def microbatches(self, batch: ExampleBatch, key: jax.Array) -> engine.Microbatches:
        dropout, _ = jax.random.split(key)
        keys = jnp.broadcast_to(dropout, (len(batch.targets),))
        return engine.Microbatches(ExampleRows(*batch[:4], keys), batch.used)

    def forward(self, params: Any, microbatch: ExampleRows) -> jax.Array:
        """Logits of documents [B, S, K] or tokens [B, T, K]; drops out if there is a key."""
        rows, _, _, documents, key = microbatch
        model = self.model if key is None else self._in_training
        bound = Classifier(model, self.config.runtime, self.outputs).bind(
            {"params": params}, rngs=None if key is None else {"dropout": key}
        )
        dropout: dict[str, Any] = {
            "deterministic": key is None,
            "dropout_ids": packing.dropout_ids(documents, rows),
        }
        x = bound.hidden(*rows, **dropout)
        if self.task_loss.level == "document":
            x = pool(x, rows.segment_ids, self.documents, document_pooling(self.model))
            x = constrain(x, "rows", None, None)
            dropout["dropout_ids"] = documents
        return bound.logits(x, **dropout)

    def loss(self, params: Any, outputs: jax.Array, microbatch: ExampleRows) -> engine.Sums:
        rows, targets, weights, *_ = microbatch
        return self.task_loss.sums(outputs, targets, weights, rows.segment_ids)

    def predict(self, params: Any, batch: ExampleBatch) -> tuple[jax.Array, engine.Sums]:
        """Logits of the first microbatch, without dropout; the sum of its losses and their count.

        Traceable.
        """
        rows, targets, weights, documents = jax.tree.map(lambda x: x[0], batch[:4])
        first = ExampleRows(rows, targets, weights, documents, None)
        logits = self.forward(params, first)
        return logits, self.loss(params, logits, first)

    def evaluate(self, params: Any, step: int) -> engine.Evaluation | None:
        return self.evaluation(params) if self.evaluation else None

    def row(self, step: int, counts: Mapping[str, Any]) -> dict[str, Any]:
        return {"epoch": step / self.batches.per_epoch}

    @property
    def _in_training(self) -> ModernBertConfig:
        """The architecture with the dropout of the run."""
        return self.config.in_training(
            self.model, classifier_dropout=self.config.classifier_dropout
        )

"""Objectives of retrieval: vectors of packed texts, and a loss over the whole batch."""

import abc
import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.embedder import Embedder
from modernbert_jax.packing import Rows
from modernbert_jax.pipeline import Step
from modernbert_jax.sharding import constrain

from .. import engine
from ..examples import packing
from ..examples.objective import ExamplesObjective
from . import batches
from .batches import TextBatch, TrainingBatches
from .config import RetrievalConfig
from .losses import LossConfig, LossKind

SCALE = "log_scale"
"""Name of the parameter of a loss whose scale is learned: the scale's logarithm."""


def of_model(params: Any) -> Any:
    """Parameters of the model without those of the loss."""
    return {name: x for name, x in params.items() if name != SCALE}


class TextRows(NamedTuple):
    """Texts in packed rows [B, T] of a microbatch."""

    rows: Rows
    documents: jax.Array
    """Numbers of the documents, int32 [B, S], each its own in the batch."""
    start: jax.Array
    """Tokens at the start of the documents that the model treats apart, int32 [B, S]."""
    key: jax.Array | None
    """For dropout, the same in all microbatches; None is none."""


class WholeBatch(NamedTuple):
    """What the loss reads of a batch of N examples, apart from the outputs."""

    documents: jax.Array
    """Numbers of the documents, int32 [A, B, S]: i + N * j for sequence j of example i."""
    valid: jax.Array
    """Examples that exist, bool [N]."""
    present: jax.Array
    """Sequences that exist, bool [J, N]."""
    targets: jax.Array
    """Targets, float32 [N, M]."""
    guide: jax.Array
    """A guide's vectors of the texts, float32 [C, N, G]."""
    key: jax.Array
    """For what the loss draws."""
    rows: Rows | None = None
    """Packed tokens, int32 [A, B, T] each, for losses that look at them."""
    loss: Any = 0
    """Number of the loss, int32 scalar; see `RetrievalObjective.losses`."""
    progress: Any = 0.0
    """Share of the run's steps before this one, float32 scalar."""


class DatasetLoss(NamedTuple):
    """A loss of some data sets of a run, and how much of a batch it reads.

    Arrays of a batch have room for the examples of all data sets; losses look at their number of
    columns and targets.
    """

    kind: LossKind
    config: LossConfig
    columns: int
    """Sequences of an example in these data sets, at most."""
    targets: int
    """Targets of an example in them."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RetrievalObjective(ExamplesObjective):
    """A loss over all texts of a batch, however they are packed and divided into microbatches.

    What is dropped of a text in training follows from its number in the batch.
    """

    coupled = True

    config: RetrievalConfig
    model: ModernBertConfig
    """The architecture as it is exported."""
    loss_kind: LossKind
    """The loss of a run, or of most of its data sets."""
    losses: tuple[DatasetLoss, ...] = ()
    """All losses of a run in which data sets differ in theirs; the batch names one. One compiled
    program holds them all."""
    documents: int
    """Documents in a row, at most, S."""
    training: TrainingBatches | None = None
    """Batches of a run; None compiles or evaluates only."""
    evaluation: Callable[[Any, int], engine.Evaluation | None] | None = None
    """Function that evaluates the whole model's parameters after a step."""
    notes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Facts of the model for its checkpoints."""

    place = staticmethod(batches.place)

    @abc.abstractmethod
    def forward(self, params: Any, microbatch: TextRows) -> jax.Array:
        """Outputs of documents, [B, S, ...], or of tokens; drops out if there is a key."""

    @property
    def name(self) -> str:
        return self.config.kind

    @property
    def steps(self) -> int:
        return self.batches.sampler.steps(self.config.epochs)

    @property
    def eval_every(self) -> int:
        return self.config.eval_every

    def microbatches(self, batch: TextBatch, key: jax.Array) -> engine.Microbatches:
        dropout, drawn = jax.random.split(key)
        return self._divided(batch, jnp.broadcast_to(dropout, (len(batch.documents),)), drawn)

    def loss(self, params: Any, outputs: jax.Array, batch: WholeBatch) -> engine.Sums:
        mean = self._mean(params, self.gathered(outputs, batch), batch)
        count = batch.valid.sum(dtype=jnp.float32)
        scale = self.scale(params)
        metrics = {} if scale is None else {"scale": count * scale}
        return engine.Sums(mean * count, count, metrics)

    def scale(self, params: Any) -> jax.Array | None:
        """The learned scale of the loss, or None where it is not learned."""
        return jnp.exp(params[SCALE]) if SCALE in params else None

    def gathered(self, outputs: jax.Array, batch: WholeBatch) -> jax.Array:
        """What the loss is a function of, from the outputs of all microbatches [A, B, S, ...].

        Here it is the outputs in the order of the examples: [J, N, ...].
        """
        columns, examples = batch.present.shape
        size = columns * examples
        rest = outputs.shape[3:]
        flat = jnp.zeros((size, *rest), outputs.dtype)
        flat = flat.at[batch.documents.reshape(-1)].set(outputs.reshape(-1, *rest), mode="drop")
        ordered = flat.reshape(columns, examples, *rest)
        return constrain(ordered, None, "rows", *(None for _ in rest))

    def evaluated(self, params: Any, batch: TextBatch) -> tuple[jax.Array, jax.Array]:
        """What the loss of a batch is a function of, without dropout, and the loss. Traceable."""
        microbatches = self._divided(batch, None, jax.random.key(0))
        outputs = engine.outputs_of(lambda one: self.forward(params, one), microbatches)
        ordered = self.gathered(outputs, microbatches.whole)
        return ordered, self._mean(params, ordered, microbatches.whole)

    def evaluate(self, params: Any, step: int) -> engine.Evaluation | None:
        return self.evaluation(params, step) if self.evaluation else None

    def row(self, step: int, counts: Mapping[str, Any]) -> dict[str, Any]:
        return {"epoch": self.batches.sampler.epochs(step)}

    def with_scale(self, params: Any) -> Any:
        """Parameters of the model with those of the loss, at their start."""
        if not self.config.loss.learn_scale:
            return params
        option, options = self.loss_kind.learned, self._options
        start = options.get(option, self.loss_kind.options[option].default)
        start = start if option == "scale" else 1 / start
        return {**params, SCALE: jnp.log(jnp.float32(start))}

    @property
    def _options(self) -> dict[str, Any]:
        return self.config.loss.options

    def _divided(
        self, batch: TextBatch, keys: jax.Array | None, drawn: jax.Array
    ) -> engine.Microbatches:
        stack = TextRows(batch.rows, batch.documents, batch.start, keys)
        whole = WholeBatch(
            *(batch.documents, batch.valid, batch.present, batch.targets, batch.guide),
            key=drawn,
            rows=batch.rows,
            loss=batch.loss,
            progress=batch.progress,
        )
        return engine.Microbatches(stack, batch.used, jax.tree.map(jnp.asarray, whole))

    def _mean(self, params: Any, outputs: jax.Array, batch: WholeBatch) -> jax.Array:
        """The mean loss over the examples of a batch, from what `gathered` returns."""

        def of_one(
            own: DatasetLoss, scale: jax.Array | None, outputs: jax.Array, batch: WholeBatch
        ) -> jax.Array:
            unused = len(batch.present) - own.columns
            own_batch = batch._replace(
                present=batch.present[: own.columns],
                targets=batch.targets[:, : own.targets],
                guide=batch.guide[: own.columns],
            )
            return self._mean_of(
                own.kind, own.config, scale, outputs[: len(outputs) - unused], own_batch
            )

        scale = self.scale(params)
        if not self.losses:
            return self._mean_of(self.loss_kind, self.config.loss, scale, outputs, batch)
        branches = [functools.partial(of_one, own) for own in self.losses]
        return jax.lax.switch(batch.loss, branches, scale, outputs, batch)

    def _mean_of(
        self,
        kind: LossKind,
        config: LossConfig,
        scale: jax.Array | None,
        outputs: jax.Array,
        batch: WholeBatch,
    ) -> jax.Array:
        """The mean of one loss; `scale` is the learned one, if there is one."""
        options = config.options
        if scale is not None and config.learn_scale:
            options[kind.learned] = scale if kind.learned == "scale" else 1 / scale
        options |= {} if kind.guide == "none" else {"guide": batch.guide}
        options |= {"key": batch.key} if self.config.matryoshka_dims_per_step else {}
        targets = batch.targets if batch.targets.shape[1] else None
        mask = batch.present if kind.takes == "scores" else batch.present[1:]
        return kind(outputs, targets, valid=batch.valid, mask=mask, **options)

    @property
    def _in_training(self) -> ModernBertConfig:
        """The architecture with the dropout of the run."""
        return self.config.in_training(self.model)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class EmbeddingObjective(RetrievalObjective):
    """A vector for each text."""

    steps_after: tuple[Step, ...]
    """Steps after the encoder, as in `Pipeline.steps`."""

    def init(self, key: jax.Array) -> Any:
        module = Embedder(self.model, self.config.runtime, self.steps_after)
        return self.with_scale(engine.init_params(module, key))

    def forward(self, params: Any, microbatch: TextRows) -> jax.Array:
        """Vectors of documents, float32 [B, S, E]."""
        rows, documents, start, key = microbatch
        model = self.model if key is None else self._in_training
        vectors: Any = Embedder(model, self.config.runtime, self.steps_after).apply(
            {"params": of_model(params)},
            *rows,
            segments=self.documents,
            dropout_ids=packing.dropout_ids(documents, rows),
            deterministic=key is None,
            skip=start,
            rngs=None if key is None else {"dropout": key},
        )
        return constrain(vectors, "rows", None, None)

"""Objectives of rerankers: scores of packed pairs, with a loss of single scores or of lists."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.embedder import Embedder
from modernbert_jax.heads import Classifier, document_pooling, pool
from modernbert_jax.packing import Rows
from modernbert_jax.pipeline import Step
from modernbert_jax.sharding import constrain

from .. import engine
from ..examples import packing
from .batches import TextBatch
from .objective import RetrievalObjective, TextRows, of_model


class PairRows(NamedTuple):
    """Pairs in packed rows [B, T] of a microbatch, with their targets."""

    rows: Rows
    documents: jax.Array
    """Numbers of the pairs, int32 [B, S], each its own in the batch."""
    start: jax.Array
    """Tokens at the start of the pairs that pooling leaves out, int32 [B, S]."""
    key: jax.Array | None
    """For dropout, the same in all microbatches; None is none."""
    targets: jax.Array
    """Targets of the pairs, float32 [B, S]."""
    exists: jax.Array
    """Pairs that exist, bool [B, S]."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class ListObjective(RetrievalObjective):
    """A score for each pair, and a loss that compares the scores of a query."""

    steps_after: tuple[Step, ...] = ()
    """Steps after the encoder, as in `Pipeline.steps`; without any there is a classifier."""

    def init(self, key: jax.Array) -> Any:
        return self.with_scale(engine.init_params(self._module(self.model), key))

    def forward(self, params: Any, microbatch: TextRows | PairRows) -> jax.Array:
        """Scores of pairs before any activation, float32 [B, S]."""
        rows, documents, start, key = microbatch[:4]
        module = self._module(self.model if key is None else self._in_training)
        own = of_model(params)
        rngs = None if key is None else {"dropout": key}
        dropout: dict[str, Any] = {
            "deterministic": key is None,
            "dropout_ids": packing.dropout_ids(documents, rows),
        }
        scores: Any
        if isinstance(module, Embedder):
            scores = module.apply(
                {"params": own}, *rows, segments=self.documents, skip=start, rngs=rngs, **dropout
            )
        else:
            bound = module.bind({"params": own}, rngs=rngs)
            hidden = bound.hidden(*rows, **dropout)
            how = document_pooling(self.model)
            pooled = pool(hidden, rows.segment_ids, self.documents, how)
            pooled = constrain(pooled, "rows", None, None)
            scores = bound.logits(pooled, **{**dropout, "dropout_ids": documents})
        return constrain(scores[..., 0], "rows", None)

    def _module(self, model: ModernBertConfig) -> Embedder | Classifier:
        if self.steps_after:
            return Embedder(model, self.config.runtime, self.steps_after)
        return Classifier(model, self.config.runtime, 1)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class PointwiseObjective(ListObjective):
    """A score for each pair, and a loss of single scores: one pass over the microbatches."""

    coupled = False

    def loss(self, params: Any, outputs: jax.Array, batch: Any) -> engine.Sums:
        """The losses of a microbatch, summed over its pairs."""
        count = batch.exists.sum(dtype=jnp.float32)
        mean = self.loss_kind(
            outputs.reshape(1, -1),
            batch.targets.reshape(-1, 1),
            mask=batch.exists.reshape(1, -1),
            **self._options,
        )
        return engine.Sums(mean * count, count)

    def _divided(
        self, batch: TextBatch, keys: jax.Array | None, drawn: jax.Array
    ) -> engine.Microbatches:
        microbatches = super()._divided(batch, keys, drawn)
        present = jnp.asarray(batch.present)
        width = len(present) - batch.targets.shape[1]
        targets = jnp.pad(jnp.asarray(batch.targets).T, ((0, width), (0, 0)))

        def placed(x: jax.Array) -> jax.Array:
            """What belongs to the pairs [J, N], by their places [A, B, S]."""
            flat = jnp.append(x.reshape(-1), jnp.zeros(1, x.dtype))
            return flat[batch.documents]

        stack: TextRows = microbatches.stack
        rows = PairRows(
            stack.rows, stack.documents, stack.start, stack.key, placed(targets), placed(present)
        )
        return microbatches._replace(stack=rows)

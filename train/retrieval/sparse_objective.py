"""The objective of sparse encoders: a loss of their vectors, and FLOPS regularization beside it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from modernbert_jax.pipeline import SpladePooling
from modernbert_jax.sharding import constrain
from modernbert_jax.splade import SparseEncoder

from .. import engine
from ..examples import packing
from .losses.regularization import flops
from .objective import RetrievalObjective, TextRows, WholeBatch, of_model


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class SparseObjective(RetrievalObjective):
    """A weight of every id of the vocabulary for each text."""

    predicted = 1.0

    pooling: SpladePooling

    def init(self, key: jax.Array) -> Any:
        module = SparseEncoder(self.model, self.config.runtime, self.pooling)
        return self.with_scale(engine.init_params(module, key))

    def forward(self, params: Any, microbatch: TextRows) -> jax.Array:
        """Vectors of documents, float32 [B, S, V]."""
        rows, documents, _, key = microbatch
        model = self.model if key is None else self._in_training
        vectors: Any = SparseEncoder(model, self.config.runtime, self.pooling).apply(
            {"params": of_model(params)},
            *rows,
            segments=self.documents,
            dropout_ids=packing.dropout_ids(documents, rows),
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
        )
        return constrain(vectors, "rows", None, None)

    def loss(self, params: Any, outputs: jax.Array, batch: WholeBatch) -> engine.Sums:
        """The loss of the vectors, with the regularization at its weight in this step."""
        vectors = self.gathered(outputs, batch)
        mean = self._mean(params, vectors, batch)
        count = batch.valid.sum(dtype=jnp.float32)
        ramp = jnp.square(jnp.minimum(batch.progress / max(self.config.flops_ramp, 1e-9), 1.0))
        queries, documents = batch.present[:1], batch.present[1:]
        of_queries, of_documents = flops(vectors[:1], queries), flops(vectors[1:], documents)
        mean += ramp * self.config.query_flops * of_queries
        mean += ramp * self.config.document_flops * of_documents
        metrics = {
            "flops_query": of_queries,
            "flops_document": of_documents,
            "flops_ramp": ramp,
            "active_query": active(vectors[:1], queries),
            "active_document": active(vectors[1:], documents),
        }
        if (scale := self.scale(params)) is not None:
            metrics["scale"] = scale
        return engine.Sums(mean * count, count, {name: count * x for name, x in metrics.items()})


def active(vectors: jax.Array, exists: jax.Array) -> jax.Array:
    """Mean number of weights that are not zero of the vectors [J, N, V] that exist, bool [J, N]."""
    counts = (vectors != 0).sum(-1, dtype=jnp.float32)
    return jnp.where(exists, counts, 0.0).sum() / jnp.maximum(exists.sum(), 1)

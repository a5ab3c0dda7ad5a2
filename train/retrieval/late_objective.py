"""Objective of late interaction: vectors of tokens, and a loss of the MaxSim of all texts."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.embedder import Embedder
from modernbert_jax.pipeline import Step
from modernbert_jax.scoring import Texts, maxsim, xtr
from modernbert_jax.sharding import constrain

from .. import engine
from ..examples import packing
from .objective import RetrievalObjective, TextRows, WholeBatch, of_model

Scoring = Literal["maxsim", "mean-maxsim", "xtr"]
"""How a query and a document are compared: the sum over the query's tokens, their mean, or XTR's
mean over the tokens that retrieve a token of the document."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LateObjective(RetrievalObjective):
    """A vector for each token; every query is scored with all documents of the batch."""

    steps_after: tuple[Step, ...]
    """Steps after the encoder, as in `Pipeline.steps`, without pooling."""
    query_tokens: int
    """Tokens of a query, at most."""
    skipped_ids: tuple[int, ...]
    """Ids of the tokens of documents whose vectors do not count."""
    scoring: Scoring = "maxsim"
    xtr_top_k: int = 256
    """Tokens that a query's token retrieves in XTR's scores."""

    def init(self, key: jax.Array) -> Any:
        module = Embedder(self.model, self.config.runtime, self.steps_after)
        return self.with_scale(engine.init_params(module, key))

    def forward(self, params: Any, microbatch: TextRows) -> jax.Array:
        """Vectors of tokens, float32 [B, T, E]."""
        rows, documents, visible, key = microbatch
        model = self.model if key is None else self._in_training
        vectors: Any = Embedder(model, self.config.runtime, self.steps_after).apply(
            {"params": of_model(params)},
            *rows,
            visible=rows.positions < _of_tokens(visible, rows.segment_ids, 0),
            dropout_ids=packing.dropout_ids(documents, rows),
            deterministic=key is None,
            rngs=None if key is None else {"dropout": key},
        )
        return constrain(vectors, "rows", None, None)

    def gathered(self, outputs: jax.Array, batch: WholeBatch) -> jax.Array:
        """Scores of all documents for all queries, float32 [K, N, N].

        Entry [k, n, q] is the score of document k of example n for query q.

        Args:
            outputs: vectors of tokens, [A, B, T, E].
            batch: where the texts are.
        """
        sequences, examples = batch.present.shape
        assert batch.rows is not None
        vectors, numbers, token_ids, segment_ids, positions = (
            _one_axis(x) for x in (outputs, batch.documents, *batch.rows)
        )
        number = _of_tokens(numbers, segment_ids, sequences * examples)
        of_query = number < examples
        queries = jnp.zeros((examples, self.query_tokens, vectors.shape[-1]), vectors.dtype)
        counts = jnp.zeros(queries.shape[:2], jnp.int32)
        # Adding lets each device of a mesh contribute the queries of its own rows.
        place = jnp.where(of_query, number, examples), positions
        queries = queries.at[place].add(vectors, mode="drop")
        counts = counts.at[place].add(1, mode="drop")
        queries, counts = constrain(queries, None, None, None), constrain(counts, None, None)
        counted = ~of_query & ~jnp.isin(token_ids, np.array(self.skipped_ids, np.int32))
        documents = (sequences - 1) * examples
        if self.scoring == "xtr":
            places = jnp.where(counted & (number < sequences * examples), number - examples, -1)
            flat = vectors.reshape(-1, vectors.shape[-1])
            scores = xtr(queries, counts, flat, places.reshape(-1), documents, self.xtr_top_k)
        else:
            scores = maxsim(
                queries,
                counts,
                vectors,
                jnp.where(counted, segment_ids, 0),
                queries=Texts(jnp.arange(examples, dtype=jnp.int32)[:, None], examples),
                documents=Texts(numbers - examples, documents),
                mean=self.scoring == "mean-maxsim",
            )
        return scores.T.reshape(sequences - 1, examples, examples)


def _of_tokens(of_documents: jax.Array, segment_ids: jax.Array, padding: int) -> jax.Array:
    """What belongs to the documents of rows, [..., S], for each of their tokens, [..., T]."""
    first = jnp.full((*of_documents.shape[:-1], 1), padding, of_documents.dtype)
    table = jnp.concatenate([first, of_documents], axis=-1)
    return jnp.take_along_axis(table, segment_ids, axis=-1)


def _one_axis(x: jax.Array) -> jax.Array:
    """Rows [A, B, ...] of all microbatches in one axis, in which a device's rows are neighbours."""
    whole = x.swapaxes(0, 1).reshape(-1, *x.shape[2:])
    return constrain(whole, "rows", *(None for _ in x.shape[2:]))

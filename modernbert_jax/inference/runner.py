"""What a model computes over packed batches, each program compiled once for every shape."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from modernbert_jax.config import ModernBertConfig, Runtime
from modernbert_jax.heads import CausalLM, Classifier, MaskedLM, document_pooling, pool
from modernbert_jax.inference.batching import ROW_DOCUMENTS, Documents, batches
from modernbert_jax.model import Encoder
from modernbert_jax.packing import Rows, rows_from
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.sharding import row_pieces, rows_sharding

BATCH_TOKENS = 8192
"""Tokens that are computed at once, unless a single row has more."""

LOGITS_AT_ONCE = 2**27
"""Bounds the batch where every token gets a score for every word: half a GB of float32."""

Params = dict[str, Any]


class Programs:
    """Packs documents, runs the model and unpacks what comes out, in order.

    Attributes:
        module: `MaskedLM`, `CausalLM`, `Classifier`, or `Encoder` where there is no head.
    """

    def __init__(
        self,
        config: ModernBertConfig,
        runtime: Runtime,
        head: str,
        labels: int,
        pipeline: Pipeline | None,
        mesh: Mesh | None = None,
    ):
        """For a head by its name in a checkpoint; `labels` are a classifier's outputs."""
        self.config, self.pipeline, self._labels = config, pipeline, labels
        self._mesh = mesh
        self._pieces = row_pieces(mesh.shape) if mesh else 1
        self._encoder = Encoder(config, runtime)
        modules = {"none": Encoder, "masked_lm": MaskedLM, "causal_lm": CausalLM}
        if head in modules:
            self.module = modules[head](config, runtime)
        else:
            self.module = Classifier(config, runtime, labels)
        self._jit_hidden = jax.jit(self._hidden)
        self._jit_logits = jax.jit(self._logits)
        self._jit_class = jax.jit(self._document_logits)
        self._jit_pooled = jax.jit(self._pooled, static_argnames="how")
        self._jit_pipeline = jax.jit(self._through_pipeline, static_argnames="normalize")

    def hidden(self, params: Params, documents: Documents) -> list[np.ndarray]:
        """Hidden states after the final norm, [len_i, D] each."""
        return self._per_token(self._jit_hidden, params, documents, self.config.hidden_size)

    def logits(self, params: Params, documents: Documents) -> list[np.ndarray]:
        """What the head says of every token, [len_i, V] or [len_i, labels] each."""
        classifier = isinstance(self.module, Classifier)
        width = self._labels if classifier else self.config.vocab_size
        most = min(BATCH_TOKENS, LOGITS_AT_ONCE // width)
        return self._per_token(self._jit_logits, params, documents, width, most)

    def document_logits(
        self, params: Params, documents: Documents, batch_tokens: int
    ) -> np.ndarray:
        """What a classifier says of each document, [n, labels]."""
        return self._per_document(self._jit_class, params, documents, self._labels, batch_tokens)

    def pooled(
        self, params: Params, documents: Documents, batch_tokens: int, how: str
    ) -> np.ndarray:
        """Hidden states pooled in one of the ways of `heads.pool`, [n, D]."""
        width = self.config.hidden_size
        return self._per_document(self._jit_pooled, params, documents, width, batch_tokens, how=how)

    def vectors(
        self, params: Params, documents: Documents, batch_tokens: int, skip: int, normalize: bool
    ) -> np.ndarray:
        """The pipeline's vector of each document, [n, E]."""
        options = {"skip": skip, "normalize": normalize}
        return self._per_document(
            self._jit_pipeline, params, documents, self._width(), batch_tokens, **options
        )

    def token_vectors(
        self, params: Params, documents: Documents, visible: Sequence[int], batch_tokens: int
    ) -> list[np.ndarray]:
        """The pipeline's vector of each token, [len_i, E]; only the first ones are seen."""
        return self._per_token(
            self._jit_pipeline, params, documents, self._width(), batch_tokens, visible
        )

    def _width(self) -> int:
        """Of what comes out of the pipeline."""
        projections, pooling = self.pipeline.projections, self.pipeline.pooling
        if projections:
            return projections[-1].out_features
        return self.config.hidden_size * (len(pooling.modes) if pooling else 1)

    def _hidden(self, params: Params, rows: Rows, visible=None) -> jax.Array:
        encoder = params.get("encoder", params)
        return self._encoder.apply({"params": encoder}, *rows, visible=visible)

    def _logits(self, params: Params, rows: Rows) -> jax.Array:
        return self.module.apply({"params": params}, *rows)

    def _document_logits(self, params: Params, rows: Rows) -> jax.Array:
        model = self.module.bind({"params": params})
        how = document_pooling(self.config)
        return model.logits(pool(model.hidden(*rows), rows.segment_ids, ROW_DOCUMENTS, how))

    def _pooled(self, params: Params, rows: Rows, how: str) -> jax.Array:
        return pool(self._hidden(params, rows), rows.segment_ids, ROW_DOCUMENTS, how)

    def _through_pipeline(
        self, params: Params, rows: Rows, visible=None, skip=0, normalize: bool = True
    ) -> jax.Array:
        hidden = self._hidden(params, rows, visible)
        return self.pipeline(
            hidden, rows.segment_ids, ROW_DOCUMENTS, params, skip=skip, normalize=normalize
        )

    def _per_document(
        self,
        compute: Callable,
        params: Params,
        documents: Documents,
        width: int,
        batch_tokens: int,
        **options: Any,
    ) -> np.ndarray:
        vectors = np.zeros((len(documents), width), np.float32)
        for batch, rows in batches(documents, batch_tokens, self._pieces):
            found = self._run(compute, params, batch, **options)
            for row, indices in zip(found, rows, strict=False):
                vectors[indices] = row[: len(indices)]
        return vectors

    def _per_token(
        self,
        compute: Callable,
        params: Params,
        documents: Documents,
        width: int,
        batch_tokens: int = BATCH_TOKENS,
        visible: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        results = [np.zeros((len(ids), width), np.float32) for ids in documents]
        hiding = visible is not None and any(
            n < len(ids) for n, ids in zip(visible, documents, strict=True)
        )
        marks = []
        if hiding:
            marks = [np.arange(len(ids)) < n for n, ids in zip(visible, documents, strict=True)]
        for batch, rows in batches(documents, batch_tokens, self._pieces):
            options = {"visible": _marked(marks, rows, batch)} if hiding else {}
            values = self._run(compute, params, batch, **options)
            for row, indices in zip(values, rows, strict=False):
                start = 0
                for i in indices:
                    results[i][:] = row[start : start + len(documents[i])]
                    start += len(documents[i])
        return results

    def _run(self, compute: Callable, params: Params, rows: Rows, **options: Any) -> np.ndarray:
        """What `compute` makes of rows, each device with its own where there is a mesh."""
        if self._mesh is None:
            return np.asarray(compute(params, rows, **options))
        with jax.set_mesh(self._mesh):
            rows = jax.device_put(rows, rows_sharding(self._mesh))
            return np.asarray(compute(params, rows, **options))


def _marked(marks: Sequence[np.ndarray], rows: list[list[int]], batch: Rows) -> np.ndarray:
    """The marks of all documents, laid out like their tokens; boolean [B, T]."""
    count, length = batch.token_ids.shape
    empty = [[]] * (count - len(rows))
    return rows_from(marks, [*rows, *empty], length).token_ids.astype(bool)

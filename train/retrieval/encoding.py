"""Vectors of queries and documents, and scores of pairs, by a checkpoint on the devices of a mesh.

    encoder = TextEncoder.load("model")
    queries = encoder.encode(texts, "query")                       # [N, E]
    for vectors in encoder.blocks(corpus, "document"): ...         # [n, E], in bounded memory

During training the same encoder computes with the parameters of a step: `encoder.using(params)`.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from modernbert_jax import convert, devices
from modernbert_jax.config import Dtype, Runtime
from modernbert_jax.convert.names import LANGUAGE_MODELS
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.inference.runner import BATCH_TOKENS
from modernbert_jax.inference.text_model import Encoding
from modernbert_jax.io.progress import Progress
from modernbert_jax.pipeline import IDENTITY
from modernbert_jax.quantization import Weights
from modernbert_jax.scoring import SIMILARITIES, TopK
from modernbert_jax.scoring.pairwise import PAIRWISE
from modernbert_jax.sharding import placed

from .on_devices import OnDevices, TwoSided, opened, sides_of, text_model
from .retriever import Side


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder(TwoSided):
    """An embedding model on the devices of a mesh."""

    @classmethod
    def load(
        cls,
        path_or_hub_id: str,
        query: Encoding | None = None,
        document: Encoding | None = None,
        **options: Any,
    ) -> Self:
        """Load an embedding model, or a bare encoder, whose vectors are the means of their tokens.

        A line says so if the model has no pooling of its own. Arguments and errors as
        `RetrieverOnDevices.load`.
        """
        encoder = super().load(path_or_hub_id, query, document, **options)
        encoder.say_pooling()
        return encoder

    def say_pooling(self) -> None:
        """Print a line if the model has no pooling of its own, and none is named."""
        if self.model.pipeline is None and not _names_pooling(self.sides.values()):
            line = "has no pooling of its own; its vectors are the means of their tokens"
            Progress(0).say(f"{self.name}: {line}")

    @classmethod
    def settings(
        cls, checkpoint: convert.Checkpoint, query: Encoding, document: Encoding, name: str
    ) -> dict[str, Any]:
        _check_gives_vectors(checkpoint, (query, document), name)
        pipeline = checkpoint.pipeline
        similarity = (pipeline and pipeline.similarity) or "cosine"
        if similarity not in SIMILARITIES:
            known = did_you_mean(similarity, SIMILARITIES)
            raise UserError(f"{name}: similarity is {similarity!r}; {known}")
        return {"similarity": similarity, "sides": sides_of(query, document, pipeline)}

    def blocks(self, texts: Iterable[str], side: Side) -> Iterator[np.ndarray]:
        """Vectors of a stream of texts, in order: float32 [n, E], in bounded memory.

        Raises:
            UserError: the model gives vectors that are not finite.
        """
        return map(self.finite, self._vectors(texts, side, stream=True))

    def encode(self, texts: Iterable[str], side: Side) -> np.ndarray:
        """Vectors of all texts: float32 [N, E]; they are packed together. Errors as `blocks`."""
        (vectors,) = self._vectors(texts, side, stream=False)
        return self.finite(vectors)

    def facts(self, side: Side) -> dict[str, Any]:
        """Everything that vectors depend on beside weights, texts and dtype, as JSON."""
        encoding = self.sides[side]
        return {
            "prompt": self.prompt(side),
            "max_length": encoding.max_length,
            "pooling": encoding.pooling,
            "normalize": encoding.normalize,
            "dims": encoding.width,
        }

    def best(self, queries: np.ndarray, k: int) -> TopK:
        """Begin a search for the k most similar documents of every query [Q, E]."""
        return TopK(queries, k, self.similarity, self.model.runner.mesh)

    def pairs(self, queries: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Similarities of each query [P, E] with the document of the same number: float32 [P]."""
        similarity = PAIRWISE[self.similarity]
        return np.asarray(similarity(jnp.asarray(queries), jnp.asarray(documents)))

    def _vectors(self, texts: Iterable[str], side: Side, stream: bool) -> Iterator[np.ndarray]:
        return self.model.vectors(self.params, texts, self.sides[side], self.batch_tokens, stream)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairScorer(OnDevices):
    """A reranker on the devices of a mesh: scores of (query, document) pairs."""

    max_length: int | None = None
    """Longest pair in tokens; of a longer one, the longer text is cut first."""

    @classmethod
    def load(
        cls,
        path_or_hub_id: str,
        max_length: int | None = None,
        *,
        dtype: Dtype = "float32",
        weights: Weights = "float32",
        batch_tokens: int = BATCH_TOKENS,
        mesh: Mesh | None = None,
    ) -> "PairScorer":
        """Load a model with a single score for a pair of texts. Arguments as `TextEncoder.load`.

        Raises:
            UserError: no such model, or one that gives no single score.
        """
        with opened(path_or_hub_id) as checkpoint:
            return cls.of(
                checkpoint,
                devices.local_mesh() if mesh is None else mesh,
                max_length,
                runtime=Runtime(dtype=dtype),
                weights=weights,
                batch_tokens=batch_tokens,
                name=path_or_hub_id,
            )

    @classmethod
    def of(
        cls,
        checkpoint: convert.Checkpoint,
        mesh: Mesh,
        max_length: int | None = None,
        *,
        runtime: Runtime | None = None,
        batch_tokens: int = BATCH_TOKENS,
        params: Any = None,
        weights: Weights = "float32",
        name: str = "the model",
    ) -> "PairScorer":
        """Use a checkpoint on a mesh; see `load` and `TextEncoder.of`."""
        model = text_model(checkpoint, mesh, runtime or Runtime(), name)
        if model.score_width != 1:
            raise UserError(f"{name}: gives no single score for a pair of texts; name a reranker")
        if params is None:
            params = placed(checkpoint.params, mesh, weights)
        return cls(
            model=model,
            params=params,
            max_length=max_length,
            batch_tokens=batch_tokens,
            name=name,
        )

    def blocks(self, pairs: Iterable[tuple[str, str]]) -> Iterator[np.ndarray]:
        """Scores of a stream of (query, document) pairs, in order: float32 [n], in bounded memory.

        They are logits, without the activation of the model, which changes no order but ties
        scores where it saturates.

        Raises:
            UserError: the model gives scores that are not finite.
        """
        scores = self.model.scores(
            self.params,
            pairs,
            IDENTITY,
            self.max_length,
            self.batch_tokens,
            stream=True,
        )
        return map(self.finite, scores)


def _check_gives_vectors(
    checkpoint: convert.Checkpoint, sides: Iterable[Encoding | None], name: str
) -> None:
    """Raise `UserError` for a model of another kind than an embedding model or a bare encoder.

    A classifier is taken as a bare encoder where a pooling is named for all sides.
    """
    pipeline, head = checkpoint.pipeline, checkpoint.head
    if pipeline is None and (head in ("none", *LANGUAGE_MODELS) or _names_pooling(sides)):
        return
    kind = pipeline.kind if pipeline else head.replace("_", " ")
    if kind == "reranker" or (kind == "sequence classification" and checkpoint.labels == 1):
        raise UserError(
            f"{name}: is a {kind} model, which scores pairs and gives no vectors; pass it as the"
            " reranker (--rerank, or --cross-encoder of mine), and name an embedding model"
        )
    if kind != "embedding":
        raise UserError(f"{name}: is a {kind} model; name an embedding model")


def _names_pooling(sides: Iterable[Encoding | None]) -> bool:
    """Whether all sides name a pooling, which replaces all modules after the encoder."""
    return all(encoding is not None and encoding.pooling is not None for encoding in sides)

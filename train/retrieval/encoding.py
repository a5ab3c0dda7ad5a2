"""Vectors of queries and documents, and scores of pairs, by a checkpoint on the devices of a mesh.

    encoder = TextEncoder.load("model")
    queries = encoder.encode(texts, "query")                       # [N, E]
    for vectors in encoder.blocks(corpus, "document"): ...         # [n, E], in bounded memory

During training the same encoder computes with the parameters of a step: `encoder.using(params)`.
"""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Self

import numpy as np
from jax.sharding import Mesh

from modernbert_jax import convert, devices
from modernbert_jax.config import Dtype, Runtime
from modernbert_jax.convert import lazy
from modernbert_jax.convert.names import LANGUAGE_MODELS
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.inference.inputs import Inputs
from modernbert_jax.inference.runner import BATCH_TOKENS, BatchRunner
from modernbert_jax.inference.text_model import Encoding, TextModel
from modernbert_jax.io.progress import Progress
from modernbert_jax.pipeline import IDENTITY, Pipeline
from modernbert_jax.scoring import SIMILARITIES
from modernbert_jax.sharding import placed

Side = Literal["query", "document"]

PROMPT_NAMES: dict[Side, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
"""Names of the prompts of queries and documents, the first that a model has; as in
sentence-transformers' `encode_query` and `encode_document`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OnDevices:
    """A model on the devices of a mesh."""

    model: TextModel
    params: Any
    """Parameters on the mesh, in the layout of `Checkpoint.params`."""
    batch_tokens: int = BATCH_TOKENS
    """Tokens of a batch on each device."""
    name: str = "the model"
    """What errors call it."""

    def using(self, params: Any) -> Self:
        """The same model, and its compiled programs, with other parameters."""
        return dataclasses.replace(self, params=params)

    def _finite(self, values: np.ndarray) -> np.ndarray:
        if not np.isfinite(values).all():
            what = "vectors" if values.ndim > 1 else "scores"
            raise UserError(
                f"{self.name}: gives {what} that are NaN or infinite; are its weights damaged?"
            )
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEncoder(_OnDevices):
    """An embedding model on the devices of a mesh."""

    similarity: str
    """The similarity of the model's vectors, a key of `SIMILARITIES`."""
    sides: Mapping[Side, Encoding]
    """How queries and documents become vectors."""

    @classmethod
    def load(
        cls,
        path_or_hub_id: str,
        query: Encoding | None = None,
        document: Encoding | None = None,
        *,
        dtype: Dtype = "float32",
        batch_tokens: int = BATCH_TOKENS,
        mesh: Mesh | None = None,
    ) -> "TextEncoder":
        """Load an embedding model, or a bare encoder, whose vectors are the means of their tokens.

        A line says so if the model has no pooling of its own.

        Args:
            path_or_hub_id: as `ModernBert.from_pretrained`.
            query: how queries become vectors; None is the model's own way.
            document: how documents become vectors; None is the model's own way.
            dtype: dtype of the computation.
            batch_tokens: tokens of a batch on each device.
            mesh: devices that share the work; None is all devices of this process.

        Raises:
            UserError: no such model, or one that gives no vectors of texts.
        """
        with _checkpoint(path_or_hub_id) as checkpoint:
            encoder = cls.of(
                checkpoint,
                devices.local_mesh() if mesh is None else mesh,
                query,
                document,
                runtime=Runtime(dtype=dtype),
                batch_tokens=batch_tokens,
                name=path_or_hub_id,
            )
        if checkpoint.pipeline is None and not _names_pooling((query, document)):
            line = "has no pooling of its own; its vectors are the means of their tokens"
            Progress(0).say(f"{path_or_hub_id}: {line}")
        return encoder

    @classmethod
    def of(
        cls,
        checkpoint: convert.Checkpoint,
        mesh: Mesh,
        query: Encoding | None = None,
        document: Encoding | None = None,
        *,
        runtime: Runtime | None = None,
        batch_tokens: int = BATCH_TOKENS,
        params: Any = None,
        name: str = "the model",
    ) -> "TextEncoder":
        """Use a checkpoint on a mesh; see `load`.

        Args:
            params: parameters that are on the mesh already, in place of those of the checkpoint.

        Raises:
            UserError: a checkpoint without tokenizer, of another kind, or without such a prompt.
        """
        _check_gives_vectors(checkpoint, (query, document), name)
        pipeline = checkpoint.pipeline
        similarity = (pipeline and pipeline.similarity) or "cosine"
        if similarity not in SIMILARITIES:
            known = did_you_mean(similarity, SIMILARITIES)
            raise UserError(f"{name}: similarity is {similarity!r}; {known}")
        sides: dict[Side, Encoding] = {
            "query": _prompted(query or Encoding(), pipeline, "query"),
            "document": _prompted(document or Encoding(), pipeline, "document"),
        }
        if params is None:
            params = placed(checkpoint.params, mesh)
        model = _text_model(checkpoint, mesh, runtime or Runtime(), name)
        return cls(
            model=model,
            params=params,
            similarity=similarity,
            sides=sides,
            batch_tokens=batch_tokens,
            name=name,
        )

    def symmetric(self) -> "TextEncoder":
        """The same encoder for texts that are neither queries nor documents: with the model's
        default prompt on both sides, unless a side has a prompt of its own.
        """
        sides = {s: dataclasses.replace(e, prompt_name=None) for s, e in self.sides.items()}
        return dataclasses.replace(self, sides=sides)

    def prompt(self, side: Side) -> str:
        """The prefix of every query, or of every document."""
        encoding = self.sides[side]
        if encoding.prompt is not None:
            return encoding.prompt
        pipeline = self.model.pipeline
        return pipeline.prompt(encoding.prompt_name) if pipeline else ""

    def blocks(self, texts: Iterable[str], side: Side) -> Iterator[np.ndarray]:
        """Vectors of a stream of texts, in order: float32 [n, E], in bounded memory.

        Raises:
            UserError: the model gives vectors that are not finite.
        """
        return map(self._finite, self._vectors(texts, side, stream=True))

    def encode(self, texts: Iterable[str], side: Side) -> np.ndarray:
        """Vectors of all texts: float32 [N, E]; they are packed together. Errors as `blocks`."""
        (vectors,) = self._vectors(texts, side, stream=False)
        return self._finite(vectors)

    def _vectors(self, texts: Iterable[str], side: Side, stream: bool) -> Iterator[np.ndarray]:
        return self.model.vectors(self.params, texts, self.sides[side], self.batch_tokens, stream)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairScorer(_OnDevices):
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
        batch_tokens: int = BATCH_TOKENS,
        mesh: Mesh | None = None,
    ) -> "PairScorer":
        """Load a model with a single score for a pair of texts. Arguments as `TextEncoder.load`.

        Raises:
            UserError: no such model, or one that gives no single score.
        """
        with _checkpoint(path_or_hub_id) as checkpoint:
            return cls.of(
                checkpoint,
                devices.local_mesh() if mesh is None else mesh,
                max_length,
                runtime=Runtime(dtype=dtype),
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
        name: str = "the model",
    ) -> "PairScorer":
        """Use a checkpoint on a mesh; see `load` and `TextEncoder.of`."""
        model = _text_model(checkpoint, mesh, runtime or Runtime(), name)
        if model.score_width != 1:
            raise UserError(f"{name}: gives no single score for a pair of texts; name a reranker")
        if params is None:
            params = placed(checkpoint.params, mesh)
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
        return map(self._finite, scores)


@contextlib.contextmanager
def _checkpoint(path_or_hub_id: str) -> Iterator[convert.Checkpoint]:
    """The checkpoint of a name, whose weights are read, and checked, within the block."""
    path = convert.locate(path_or_hub_id)
    with lazy.finite(path):
        yield convert.load(path, later=True)


def _text_model(
    checkpoint: convert.Checkpoint, mesh: Mesh, runtime: Runtime, name: str
) -> TextModel:
    """The programs of a checkpoint. Raises `UserError` if it has no tokenizer."""
    tokenizer, pipeline = checkpoint.need_tokenizer(name), checkpoint.pipeline
    runner = BatchRunner(
        checkpoint.config, runtime, checkpoint.head, checkpoint.labels, pipeline, mesh
    )
    return TextModel(runner, Inputs(checkpoint.config, pipeline, lambda: tokenizer), pipeline)


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
    if kind in ("reranker", "sequence classification"):
        raise UserError(
            f"{name}: is a {kind} model, which scores pairs and gives no vectors; pass it as the"
            " reranker (--rerank, or --cross-encoder of mine), and name an embedding model"
        )
    if kind != "embedding":
        raise UserError(f"{name}: is a {kind} model; name an embedding model")


def _names_pooling(sides: Iterable[Encoding | None]) -> bool:
    """Whether all sides name a pooling, which replaces all modules after the encoder."""
    return all(encoding is not None and encoding.pooling is not None for encoding in sides)


def _prompted(encoding: Encoding, pipeline: Pipeline | None, side: Side) -> Encoding:
    """The encoding of a side, with the prompt of the model if it names none itself."""
    if encoding.prompt is None and encoding.prompt_name is None and pipeline is not None:
        names = (name for name in PROMPT_NAMES[side] if name in pipeline.prompts)
        encoding = dataclasses.replace(encoding, prompt_name=next(names, None))
    if encoding.prompt_name is not None:
        (pipeline or Pipeline(kind="embedding")).prompt(encoding.prompt_name)
    return encoding

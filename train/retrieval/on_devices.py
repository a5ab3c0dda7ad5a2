"""Models on the devices of a mesh: what encoders and rerankers share."""

import abc
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, Self

import numpy as np
from jax.sharding import Mesh

from modernbert_jax import convert, devices
from modernbert_jax.config import Dtype, Runtime
from modernbert_jax.convert import lazy
from modernbert_jax.errors import UserError
from modernbert_jax.inference.inputs import Inputs
from modernbert_jax.inference.runner import BATCH_TOKENS, BatchRunner
from modernbert_jax.inference.text_model import Encoding, TextModel
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.quantization import Weights
from modernbert_jax.sharding import placed

from .retriever import Side

PROMPT_NAMES: dict[Side, tuple[str, ...]] = {
    "query": ("query",),
    "document": ("document", "passage", "corpus"),
}
"""Names of the prompts of queries and documents, the first that a model has; as in
sentence-transformers' `encode_query` and `encode_document`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnDevices:
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

    def finite(self, values: np.ndarray) -> np.ndarray:
        """The vectors or scores. Raises `UserError` if they are not finite."""
        if not np.isfinite(values).all():
            what = "vectors" if values.ndim > 1 else "scores"
            raise UserError(
                f"{self.name}: gives {what} that are NaN or infinite; are its weights damaged?"
            )
        return values


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrieverOnDevices(OnDevices):
    """A model that represents queries and documents; see `retriever.Retriever`."""

    similarity: str
    """Name of the comparison of representations."""

    @classmethod
    def load(
        cls,
        path_or_hub_id: str,
        query: Encoding | None = None,
        document: Encoding | None = None,
        *,
        dtype: Dtype = "float32",
        weights: Weights = "float32",
        batch_tokens: int = BATCH_TOKENS,
        mesh: Mesh | None = None,
    ) -> Self:
        """Load a model.

        Args:
            path_or_hub_id: as `ModernBert.from_pretrained`.
            query: how queries are represented; None is the model's own way.
            document: how documents are represented; None is the model's own way.
            dtype: dtype of the computation.
            weights: type in which matrices are kept in memory.
            batch_tokens: tokens of a batch on each device.
            mesh: devices that share the work; None is all devices of this process.

        Raises:
            UserError: no such model, one of another kind, or an option that it does not have.
        """
        with opened(path_or_hub_id) as checkpoint:
            return cls.of(
                checkpoint,
                devices.local_mesh() if mesh is None else mesh,
                query,
                document,
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
        query: Encoding | None = None,
        document: Encoding | None = None,
        *,
        runtime: Runtime | None = None,
        batch_tokens: int = BATCH_TOKENS,
        params: Any = None,
        weights: Weights = "float32",
        name: str = "the model",
    ) -> Self:
        """Use a checkpoint on a mesh; see `load`.

        Args:
            checkpoint: with a tokenizer.
            params: parameters that are on the mesh already, in place of those of the checkpoint.
            weights: type in which those of the checkpoint are kept in memory.
            name: what errors call the model.
        """
        own = cls.settings(checkpoint, query or Encoding(), document or Encoding(), name)
        if params is None:
            params = placed(checkpoint.params, mesh, weights)
        model = text_model(checkpoint, mesh, runtime or Runtime(), name)
        return cls(model=model, params=params, batch_tokens=batch_tokens, name=name, **own)

    @classmethod
    @abc.abstractmethod
    def settings(
        cls, checkpoint: convert.Checkpoint, query: Encoding, document: Encoding, name: str
    ) -> dict[str, Any]:
        """The fields of this kind of model for a checkpoint; see `of`.

        Raises:
            UserError: a checkpoint of another kind, or an option that it does not have.
        """


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoSided(RetrieverOnDevices):
    """A model with one representation for each text, of queries and of documents."""

    sides: Mapping[Side, Encoding]
    """How queries and documents are represented."""

    def with_lengths(self, query: int | None, document: int | None) -> Self:
        """As `retriever.Retriever`."""
        longest = {"query": query, "document": document}
        sides = {
            side: dataclasses.replace(own, max_length=longest[side] or own.max_length)
            for side, own in self.sides.items()
        }
        return dataclasses.replace(self, sides=sides)

    def symmetric(self) -> Self:
        """The same model for texts that are neither queries nor documents: with its default prompt
        on both sides, unless a side has a prompt of its own.
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


@contextlib.contextmanager
def opened(path_or_hub_id: str) -> Iterator[convert.Checkpoint]:
    """The checkpoint of a name, whose weights are read, and checked, within the block."""
    path = convert.locate(path_or_hub_id)
    with lazy.finite(path):
        yield convert.load(path, later=True)


def text_model(
    checkpoint: convert.Checkpoint, mesh: Mesh, runtime: Runtime, name: str
) -> TextModel:
    """The programs of a checkpoint. Raises `UserError` if it has no tokenizer."""
    tokenizer, pipeline = checkpoint.need_tokenizer(name), checkpoint.pipeline
    runner = BatchRunner(
        checkpoint.config, runtime, checkpoint.head, checkpoint.labels, pipeline, mesh
    )
    return TextModel(runner, Inputs(checkpoint.config, pipeline, lambda: tokenizer), pipeline)


def sides_of(
    query: Encoding, document: Encoding, pipeline: Pipeline | None
) -> dict[Side, Encoding]:
    """The encodings of both sides, with the prompts of the model where they name none."""
    return {
        "query": prompted(query, pipeline, "query"),
        "document": prompted(document, pipeline, "document"),
    }


def prompted(encoding: Encoding, pipeline: Pipeline | None, side: Side) -> Encoding:
    """The encoding of a side, with the prompt of the model if it names none itself."""
    if encoding.prompt is None and encoding.prompt_name is None and pipeline is not None:
        names = (name for name in PROMPT_NAMES[side] if name in pipeline.prompts)
        encoding = dataclasses.replace(encoding, prompt_name=next(names, None))
    if encoding.prompt_name is not None:
        (pipeline or Pipeline(kind="embedding")).prompt(encoding.prompt_name)
    return encoding


def refuse_vectors(query: Encoding, document: Encoding, what: str) -> None:
    """Raise `UserError`, which begins with `what`, for options of a single vector for each text."""
    for encoding in (query, document):
        if encoding.pooling or encoding.width or encoding.normalize is not None:
            raise UserError(f"{what}; leave out pooling, dims and normalize")

"""`TextModel`: a model that reads texts, and gives their vectors or the scores of pairs."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.heads import POOLINGS
from modernbert_jax.inference.inputs import Inputs
from modernbert_jax.inference.runner import BATCH_TOKENS, BatchRunner, Params
from modernbert_jax.late_interaction import pool_tokens
from modernbert_jax.pipeline import LateInteraction, Pipeline, TokenPooling, reranker_activation
from modernbert_jax.splade import SparseVector


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
    """How texts become vectors; every None is the model's own."""

    pooling: str | None = None
    """One of `heads.POOLINGS`; it replaces all modules after the encoder."""
    normalize: bool | None = None
    """True scales every vector to length 1; False leaves out the model's own normalisation."""
    prompt: str | None = None
    """Prefix of every text; "" for none."""
    prompt_name: str | None = None
    """Name of one of `Pipeline.prompts`."""
    max_length: int | None = None
    """Longest text in tokens; longer ones lose their end."""
    width: int | None = None
    """How many of the first numbers of a vector to keep."""
    max_active_dims: int | None = None
    """How many of the largest weights of a sparse vector to keep."""

    def __post_init__(self) -> None:
        if self.pooling is not None and self.pooling not in POOLINGS:
            hint = did_you_mean(str(self.pooling), POOLINGS)
            raise UserError(f"pooling is {self.pooling!r}; {hint}")
        if self.prompt is not None and self.prompt_name is not None:
            raise UserError("prompt and prompt_name exclude each other")


@dataclasses.dataclass(frozen=True)
class TextModel:
    """The programs of a model, with the preparation of texts for it."""

    runner: BatchRunner
    inputs: Inputs
    pipeline: Pipeline | None

    @property
    def score_width(self) -> int:
        """Number of scores that a text or a pair of texts has; 0 without a classifier of texts."""
        program = self.runner.programs.get(self.score_program)
        return program.width if program else 0

    @property
    def vector_width(self) -> int:
        """Width of the vectors of texts, by the model's own modules."""
        pipeline = self.pipeline
        modules = pipeline is not None and pipeline.pooling is not None
        width = self.runner.programs["vectors" if modules else "pooled"].width
        return min(width, (pipeline and pipeline.truncate_dim) or width)

    @property
    def score_program(self) -> str:
        """Program that scores texts: the last module of a reranker, else a classifier."""
        modules = self.pipeline and self.pipeline.kind == "reranker" and self.pipeline.steps
        return "vectors" if modules else "document_logits"

    def vectors(
        self,
        params: Params,
        texts: Iterable[str],
        encoding: Encoding,
        batch_tokens: int = BATCH_TOKENS,
        stream: bool = False,
    ) -> Iterator[np.ndarray]:
        """Vectors of texts in order: float32 [n, E] by window, or one window of all texts.

        Args:
            params: parameters of the model.
            texts: any number of texts.
            encoding: how they become vectors.
            batch_tokens: tokens of a batch on each device, but at least one row.
            stream: whether `texts` is read window by window, in bounded memory.

        Raises:
            UserError: a late-interaction model, or a prompt that the model does not have.
        """
        pipeline, pooling = self.pipeline or Pipeline(kind="embedding"), encoding.pooling
        if pooling is None and pipeline.late:
            raise UserError("a late-interaction model has a vector per token; use encode_tokens")
        if pooling is None and pipeline.splade:
            raise UserError("a sparse model has weights of ids instead of a vector; use sparse")
        prefix = _prefix(encoding, pipeline)
        limit = encoding.max_length
        documents = self.inputs.documents((prefix + text for text in texts), limit, stream)
        options: dict[str, Any]
        if pooling is not None or pipeline.pooling is None:
            name, options = "pooled", {"how": pooling or "mean"}
        else:
            skip = self.inputs.prompt_length(prefix, limit)
            name, options = "vectors", {"skip": skip, "normalize": encoding.normalize is not False}
        windows: Iterator[Any] = self.runner.windows(
            name,
            params,
            documents,
            batch_tokens,
            tokens=self.runner.window_tokens(batch_tokens) if stream else None,
            **options,
        )
        width = encoding.width or (pipeline.truncate_dim if pooling is None else None)
        if width:
            windows = (np.ascontiguousarray(vectors[:, :width]) for vectors in windows)
        return map(_unit, windows) if encoding.normalize else windows

    def sparse(
        self,
        params: Params,
        texts: Iterable[str],
        encoding: Encoding,
        batch_tokens: int = BATCH_TOKENS,
        stream: bool = False,
    ) -> Iterator[list[SparseVector]]:
        """Sparse vectors of texts in order, by window, or one window of all texts.

        Arguments are those of `vectors`.

        Raises:
            UserError: another kind of model, a prompt that it does not have, or a number of weights
                that is out of range.
        """
        pipeline = self.pipeline
        if pipeline is None or pipeline.splade is None:
            raise UserError("the model is not a sparse one; use encode")
        width = self.runner.programs["sparse"].width
        count = encoding.max_active_dims or pipeline.max_active_dims
        if encoding.max_active_dims is not None and not 0 < encoding.max_active_dims <= width:
            raise UserError(
                f"max_active_dims is {encoding.max_active_dims}; it must be 1 to {width:,}, the"
                " size of the vocabulary"
            )
        prefix = _prefix(encoding, pipeline)
        documents = self.inputs.documents(
            (prefix + text for text in texts), encoding.max_length, stream
        )
        windows: Iterator[Any] = self.runner.windows(
            "sparse",
            params,
            documents,
            batch_tokens,
            tokens=self.runner.window_tokens(batch_tokens) if stream else None,
            count=count if count and count < width else None,
        )
        return windows

    def tokens(
        self,
        params: Params,
        texts: Iterable[str],
        late: LateInteraction,
        is_query: bool,
        batch_tokens: int = BATCH_TOKENS,
        stream: bool = False,
        pool_factor: float | None = None,
    ) -> Iterator[list[np.ndarray]]:
        """Token vectors of texts in order, float32 [tokens_i, E], by window or all in one window.

        Arguments are those of `vectors`, and:

        Args:
            late: settings of the model, which may have other prefixes or lengths than its own.
            is_query: whether the texts are queries or documents.
            pool_factor: of the documents' token pooling; None is the model's own.

        Raises:
            UserError: a factor below 1, or vectors to be pooled that are not finite.
        """
        prompt = self.pipeline.prompt(None) if self.pipeline else ""
        pooling = self.pipeline.token_pooling if self.pipeline else None
        if pool_factor is not None:
            pooling = dataclasses.replace(pooling or TokenPooling(), factor=pool_factor)
        documents = self.inputs.late(texts, late, prompt, is_query, stream)
        windows: Iterator[Any] = self.runner.windows(
            "vectors",
            params,
            documents,
            batch_tokens,
            tokens=self.runner.window_tokens(batch_tokens) if stream else None,
        )
        if pooling is None or is_query:
            return windows
        return ([pool_tokens(x, pooling) for x in window] for window in windows)

    def scores(
        self,
        params: Params,
        texts: Iterable[str | tuple[str, str]],
        activation: str | None = None,
        max_length: int | None = None,
        batch_tokens: int = BATCH_TOKENS,
        stream: bool = False,
        prompt_name: str | None = None,
    ) -> Iterator[np.ndarray]:
        """Scores of texts or pairs: float32 [n, labels], or [n] for one label.

        Arguments are those of `vectors`, and:

        Args:
            activation: a key of `pipeline.ACTIVATIONS`; None is that of the model, else the sigmoid
                for a single label and nothing for several.
            max_length: in tokens; of a pair the longer text is cut first.
            prompt_name: name of a prompt of the model, the prefix of the first text of each pair;
                None is its default.
        """
        prompt = self.pipeline.prompt(prompt_name) if self.pipeline else ""
        texts = (prefixed(text, prompt) for text in texts) if prompt else texts
        name, options = self.score_program, dict[str, Any]()
        if name == "vectors":
            options = {"skip": self.inputs.prompt_length(prompt, max_length)}
        documents = self.inputs.documents(texts, max_length, stream)
        windows: Iterator[Any] = self.runner.windows(
            name,
            params,
            documents,
            batch_tokens,
            tokens=self.runner.window_tokens(batch_tokens) if stream else None,
            **options,
        )
        named = self.pipeline.activation if self.pipeline and not activation else activation
        labels = self.score_width
        activate = reranker_activation(named, labels)
        for logits in windows:
            activated = np.asarray(activate(logits))
            yield activated[:, 0] if labels == 1 else activated


def _prefix(encoding: Encoding, pipeline: Pipeline) -> str:
    """The prefix of every text."""
    if encoding.prompt is not None:
        return encoding.prompt
    return pipeline.prompt(encoding.prompt_name)


def prefixed(text: str | tuple[str, str], prompt: str) -> str | tuple[str, str]:
    """A text, or a pair of texts, with a prompt before the first text."""
    return prompt + text if isinstance(text, str) else (prompt + text[0], *text[1:])


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors divided by their length, in place."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors /= np.maximum(lengths, np.finfo(np.float32).tiny)
    return vectors

"""What `ModernBert` does with an embedding model: vectors of texts and tokens, and similarities."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, Unpack, overload

import numpy as np

from modernbert_jax import encode_names, late_interaction
from modernbert_jax.encode_names import EncodeNames
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.inference.runner import BATCH_TOKENS
from modernbert_jax.inference.text_model import Encoding, TextModel
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.scoring import sparse
from modernbert_jax.scoring.similarity import SIMILARITIES


class TextEncoding:
    """The part of `ModernBert` for vectors of texts, or of their tokens."""

    params: dict[str, Any]
    pipeline: Pipeline | None
    text_model: TextModel

    @overload
    def encode(
        self,
        texts: Sequence[str],
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
        stream: Literal[False] = False,
        **names: Unpack[EncodeNames],
    ) -> np.ndarray: ...

    @overload
    def encode(
        self,
        texts: Iterable[str],
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
        *,
        stream: Literal[True],
        **names: Unpack[EncodeNames],
    ) -> Iterator[np.ndarray]: ...

    def encode(
        self,
        texts: Iterable[str],
        pooling: str | None = None,
        normalize: bool | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
        stream: bool = False,
        **names: Unpack[EncodeNames],
    ) -> np.ndarray | Iterator[np.ndarray]:
        """One vector for each text, in order: float32 [n, D], or of the model's own width.

        By default an embedding model uses its own pooling, dense layers, normalisation and prompt.
        Other models use mean pooling.

        Args:
            texts: any number of texts, also none; spaces around them are kept.
            pooling: one of `heads.POOLINGS` over the text's tokens, with the special ones. It
                replaces all modules after the encoder.
            normalize: True scales every vector to length 1; False leaves out the model's own
                normalisation.
            prompt: prefix of every text; "" for none.
            max_length: in tokens; longer texts lose their end. None is the model's longest input.
            batch_tokens: tokens of a batch on each device, at least one row; default 8,192.
            prompt_name: name of one of `pipeline.prompts`.
            stream: True reads `texts` lazily, packs some batches of them at a time, and returns an
                iterator over vectors [D] in bounded memory.
            names: options by the names of sentence-transformers; see `EncodeNames`.

        Raises:
            UserError: an invalid argument, or a late-interaction model.
        """
        if isinstance(texts, str):
            raise UserError("texts is a string; give a list of strings")
        normalize, width = encode_names.read(names, normalize)
        encoding = Encoding(
            pooling=pooling,
            normalize=normalize,
            prompt=prompt,
            prompt_name=prompt_name,
            max_length=max_length,
            width=width,
        )
        size = BATCH_TOKENS if batch_tokens is None else batch_tokens
        windows = self.text_model.vectors(self.params, texts, encoding, size, stream)
        if stream:
            return (vector.copy() for vectors in windows for vector in vectors)
        (vectors,) = windows
        return vectors

    @overload
    def encode_tokens(
        self,
        texts: Sequence[str],
        is_query: bool = False,
        batch_tokens: int | None = None,
        stream: Literal[False] = False,
        pool_factor: float | None = None,
    ) -> list[np.ndarray]: ...

    @overload
    def encode_tokens(
        self,
        texts: Iterable[str],
        is_query: bool = False,
        batch_tokens: int | None = None,
        *,
        stream: Literal[True],
        pool_factor: float | None = None,
    ) -> Iterator[np.ndarray]: ...

    def encode_tokens(
        self,
        texts: Iterable[str],
        is_query: bool = False,
        batch_tokens: int | None = None,
        stream: bool = False,
        pool_factor: float | None = None,
    ) -> list[np.ndarray] | Iterator[np.ndarray]:
        """A late-interaction model's vectors of each text, float32 [tokens_i, E].

        Vectors of queries include the tokens that fill them up; those of documents leave out
        the model's skiplist. `similarity` compares them.

        Args:
            texts: any number of texts; spaces around them are removed.
            is_query: whether the texts are queries or documents.
            batch_tokens: tokens of a batch on each device, at least one row; default 8,192.
            stream: as for `encode`; the iterator gives [tokens_i, E].
            pool_factor: average number of a document's token vectors that one mean replaces, 1 or
                more; None is the model's own `Pipeline.token_pooling`. Queries stay as they are.

        Raises:
            UserError: another kind of model, or a factor below 1.
        """
        if self.pipeline is None or self.pipeline.late is None:
            raise UserError("the model is not for late interaction; use encode")
        if isinstance(texts, str):
            raise UserError("texts is a string; give a list of strings")
        size = BATCH_TOKENS if batch_tokens is None else batch_tokens
        late = self.pipeline.late
        windows = self.text_model.tokens(
            self.params, texts, late, is_query, size, stream, pool_factor
        )
        vectors = (vectors for window in windows for vectors in window)
        return vectors if stream else list(vectors)

    def similarity(
        self,
        a: np.ndarray | Sequence[Any],
        b: np.ndarray | Sequence[Any],
    ) -> np.ndarray:
        """The model's own similarity of encoded texts: float32 [len(a), len(b)].

        Args:
            a: vectors [n, E] of `encode`; for late interaction a list of [tokens_i, E] of
                `encode_tokens`, which are the queries; of a sparse model the list of `sparse`.
            b: the same of the documents.

        Raises:
            UserError: an unknown similarity in the model's files.
        """
        pipeline = self.pipeline or Pipeline(kind="embedding")
        known = [*(late_interaction.SIMILARITIES if pipeline.late else SIMILARITIES)]
        name = pipeline.similarity or ("dot" if pipeline.splade else known[0])
        if name not in known:
            raise UserError(f"similarity is {name!r}; {did_you_mean(name, known)}")
        if pipeline.late:
            return late_interaction.SIMILARITIES[name](list(a), list(b))
        if pipeline.splade:
            return sparse.similarities(list(a), list(b), name)
        return SIMILARITIES[name](np.asarray(a, np.float32), np.asarray(b, np.float32))

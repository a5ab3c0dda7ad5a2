"""What `ModernBert` does with a sparse model: weights of the vocabulary's ids for each text."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal, overload

from modernbert_jax.errors import UserError
from modernbert_jax.inference.runner import BATCH_TOKENS
from modernbert_jax.inference.text_model import Encoding, TextModel
from modernbert_jax.splade import SparseVector


class SparseEncoding:
    """The part of `ModernBert` for sparse models."""

    params: dict[str, Any]
    text_model: TextModel

    @overload
    def sparse(
        self,
        texts: Sequence[str],
        max_active_dims: int | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
        stream: Literal[False] = False,
    ) -> list[SparseVector]: ...

    @overload
    def sparse(
        self,
        texts: Iterable[str],
        max_active_dims: int | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
        *,
        stream: Literal[True],
    ) -> Iterator[SparseVector]: ...

    def sparse(
        self,
        texts: Iterable[str],
        max_active_dims: int | None = None,
        prompt: str | None = None,
        max_length: int | None = None,
        batch_tokens: int | None = None,
        prompt_name: str | None = None,
        stream: bool = False,
    ) -> list[SparseVector] | Iterator[SparseVector]:
        """The ids with a weight above zero and their weights, for each text in order.

        `similarity` compares them; `tokenizer.token(i)` is the token of an id.

        Args:
            texts: any number of texts; spaces around them are kept.
            max_active_dims: number of the largest weights to keep, from 1 to the size of the
                vocabulary; None is the model's own number, or all.
            prompt: prefix of every text; "" for none.
            max_length: in tokens; longer texts lose their end. None is the model's longest input.
            batch_tokens: tokens of a batch on each device, at least one row; default 8,192.
            prompt_name: name of one of `pipeline.prompts`; None is the model's default.
            stream: True reads `texts` lazily, packs some batches of them at a time, and returns an
                iterator in bounded memory.

        Returns:
            (indices, values) of each text: int32 [n] in ascending order, and float32 [n].

        Raises:
            UserError: another kind of model, or an invalid argument.
        """
        if isinstance(texts, str):
            raise UserError("texts is a string; give a list of strings")
        encoding = Encoding(
            prompt=prompt,
            prompt_name=prompt_name,
            max_length=max_length,
            max_active_dims=max_active_dims,
        )
        size = BATCH_TOKENS if batch_tokens is None else batch_tokens
        windows = self.text_model.sparse(self.params, texts, encoding, size, stream)
        vectors = (vector for window in windows for vector in window)
        return vectors if stream else list(vectors)

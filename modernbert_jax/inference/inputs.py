"""Texts to documents of token ids for a model: prompts, lengths, checks."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np

from modernbert_jax import late_interaction
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.inference.runner import Document
from modernbert_jax.pipeline import LateInteraction, Pipeline
from modernbert_jax.tokenizer import Tokenizer

TEXTS_AT_ONCE = 256
"""Texts of a stream that are tokenized together."""

T = TypeVar("T")


class Inputs:
    """Preparation of texts for a model."""

    def __init__(
        self,
        config: ModernBertConfig,
        pipeline: Pipeline | None,
        tokenizer: Callable[[], Tokenizer | None],
    ):
        """Prepare texts for an architecture; `tokenizer` loads the tokenizer when it is needed."""
        self._config, self._pipeline, self._tokenizer = config, pipeline, tokenizer

    @property
    def longest(self) -> int:
        """The longest input in tokens."""
        own = self._pipeline.max_length if self._pipeline else None
        limit = self._config.max_position_embeddings
        return min(own or limit, limit)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer. Raises `UserError` if the model has none."""
        tokenizer = self._tokenizer()
        if tokenizer is None:
            raise UserError("the model has no tokenizer.json; give token ids instead of text")
        return tokenizer

    def documents(
        self, inputs: Iterable[Any], max_length: int | None = None, stream: bool = False
    ) -> Iterator[Document]:
        """Documents of texts or of pairs of texts, with special tokens.

        Args:
            inputs: texts, or pairs of texts.
            max_length: in tokens; None is the longest input of the model. Longer texts lose their
                end; of a pair the longer text is cut first.
            stream: whether `inputs` is read in pieces of `TEXTS_AT_ONCE`, or all at once.
        """
        tokenizer, limit, lower = self.tokenizer, self._limit(max_length), self._lower_case

        def tokenized(some: list[Any]) -> list[Document]:
            if lower:
                some = [t.lower() if isinstance(t, str) else tuple(map(str.lower, t)) for t in some]
            paired = not isinstance(some[0], str)
            encode = tokenizer.encode_pairs if paired else tokenizer.encode
            return [Document(ids) for ids in encode(some, max_length=limit)]

        return self._in_pieces(inputs, tokenized, stream)

    def prompt_length(self, prompt: str, max_length: int | None = None) -> int:
        """Number of tokens at the start of a document that belong to its prompt."""
        # The token that ends a text does not end a prompt.
        prompts = self.documents([prompt] if prompt else [], max_length)
        return sum(len(document.ids) - 1 for document in prompts)

    def late(
        self,
        texts: Iterable[str],
        settings: LateInteraction,
        prompt: str,
        is_query: bool,
        stream: bool,
    ) -> Iterator[Document]:
        """Documents of queries or documents of a late-interaction model."""
        tokenizer, lower = self.tokenizer, self._lower_case

        def tokenized(some: list[str]) -> list[Document]:
            tokens = late_interaction.tokenize(
                [prompt + text for text in some],
                tokenizer,
                settings,
                is_query=is_query,
                longest=self.longest,
                lower_case=lower,
            )
            return [Document(*t) for t in tokens]

        return self._in_pieces(texts, tokenized, stream)

    def ids(self, documents: Iterable[Sequence[int]]) -> list[Document]:
        """Documents of token ids. Raises `UserError` for ids that are no integers, or unknown."""
        if isinstance(documents, str | bytes) or not isinstance(documents, Iterable):
            raise UserError(f"{type(documents).__name__} is given; give lists of token ids")
        checked = [Document(_integers(number, ids)) for number, ids in enumerate(documents)]
        return list(self._in_pieces(checked, list, False))

    @property
    def _lower_case(self) -> bool:
        return self._pipeline is not None and self._pipeline.lower_case

    def _limit(self, max_length: int | None) -> int:
        if max_length is not None and max_length < 2:
            raise UserError(f"max_length is {max_length}; it must be 2 or more")
        return max_length or self.longest

    def _in_pieces(
        self, items: Iterable[T], convert: Callable[[list[T]], list[Document]], stream: bool
    ) -> Iterator[Document]:
        """Converted items with checked ids, read lazily if `stream`."""
        iterator, number = iter(items), 0
        while some := list(itertools.islice(iterator, TEXTS_AT_ONCE if stream else None)):
            for document in convert(some):
                self._check(number, document.ids)
                number += 1
                yield document

    def _check(self, number: int, ids: Sequence[int]) -> None:
        size, array = self._config.vocab_size, np.asarray(ids)
        wrong = array[(array < 0) | (array >= size)]
        if wrong.size:
            raise UserError(f"document {number} has token id {wrong[0]}; ids are 0 to {size - 1}")


def _integers(number: int, ids: Any) -> Sequence[int]:
    """The ids of a document, if they are integers."""
    if isinstance(ids, Iterator):
        ids = list(ids)
    try:
        array = np.asarray(ids)
    except ValueError:  # lists of different lengths in it
        array = np.asarray(None)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        kind = f"{array.dtype} [{', '.join(map(str, array.shape))}]"
        shown = "lists" if array.dtype == object else kind
        raise UserError(f"document {number} holds {shown}; it must be a list of integers")
    return ids

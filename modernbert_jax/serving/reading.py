"""Texts and token ids of a request → documents for the model, within the server's limits."""

import copy
import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

from modernbert_jax.errors import UserError
from modernbert_jax.inference.inputs import Inputs
from modernbert_jax.inference.runner import Document
from modernbert_jax.inference.text_model import prefixed
from modernbert_jax.pipeline import Pipeline
from modernbert_jax.pretrained import ModernBert
from modernbert_jax.tokenizer import Tokenizer

from .faults import Fault, too_large, unsupported
from .fields import Fields, Input
from .settings import Settings

Side = Literal["left", "right"]

SIDES: tuple[Side, ...] = ("left", "right")
"""Sides at which texts that are too long are cut."""

Sequences = Sequence[Input | tuple[str, str]]
"""Texts, pairs of texts or lists of token ids."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How the texts of a request are read."""

    prompt_name: str | None = None
    """Name of one of the model's prompts; None is its default."""
    truncate: bool | None = None
    """Whether texts that are too long are cut; None is the server's setting."""
    side: str | None = None
    """One of `SIDES`; None is the tokenizer's."""
    is_query: bool = False
    """Whether texts are queries of a late-interaction model, or documents."""

    @classmethod
    def of(cls, fields: Fields) -> "Reading":
        """The settings in a request."""
        given = "truncation_direction" in fields
        return cls(
            prompt_name=fields.optional("prompt_name", str),
            truncate=fields.optional("truncate", bool),
            side=fields.choice("truncation_direction", SIDES, "right") if given else None,
            is_query=fields.get("is_query", bool, False),
        )


class Documents(NamedTuple):
    """The documents of a request."""

    documents: list[Document]
    skip: int = 0
    """Tokens of the prompt at the start of each that pooling leaves out."""

    @property
    def tokens(self) -> int:
        """Tokens of all documents."""
        return sum(len(document.ids) for document in self.documents)


class Reader:
    """Reads the texts of requests. It does not change, and threads may share it."""

    def __init__(self, bert: ModernBert, settings: Settings):
        """A reader for a model. Raises `UserError` if the model has no tokenizer."""
        self._settings, self._pipeline = settings, bert.pipeline
        self._own = bert.inputs
        self.tokenizer: Tokenizer = bert.inputs.tokenizer
        self._inputs: dict[str, Inputs] = {side: self._cutting(bert, side) for side in SIDES}
        longest = bert.inputs.longest
        if settings.max_length > longest:
            raise UserError(
                f"max_length is {settings.max_length}; the model reads up to {longest} tokens"
            )
        self.longest = settings.max_length or longest
        """Longest text in tokens."""
        if self.longest < 2:
            raise UserError(f"max_length is {self.longest}; it must be 2 or more")

    @property
    def longest_document(self) -> int:
        """Longest document in tokens, with the tokens that fill up queries."""
        late = self._pipeline.late if self._pipeline else None
        lengths = (late.query_length, late.document_length) if late else ()
        return max(self.longest, *(n or 0 for n in lengths), 2)

    def documents(self, inputs: Sequences, reading: Reading) -> Documents:
        """Documents of texts, pairs of texts or token ids.

        Raises:
            Fault: they are too many or too long, or have unknown ids or an unknown prompt.
        """
        self.check_count(len(inputs))
        try:
            read = self._read(inputs, reading)
        except UserError as error:
            raise Fault(422, str(error), "Tokenizer") from None
        self.check_tokens(read.tokens)
        return read

    def check_text(self, texts: Iterable[str]) -> None:
        """Raise `Fault` if texts have more tokens than a request may have."""
        self.check_tokens(sum(map(len, self.tokenizer.encode([*texts]))))

    def check_tokens(self, tokens: int) -> None:
        """Raise `Fault` for more tokens than a request may have."""
        most = self._settings.max_tokens
        if tokens > most:
            raise too_large(f"the inputs have {tokens:,} tokens; a request may have {most:,}")

    def check_count(self, count: int) -> None:
        """Raise `Fault` for more texts than a request may have."""
        most = self._settings.max_texts
        if count > most:
            raise too_large(f"batch size {count:,} is more than the largest of {most:,}")

    def _read(self, inputs: Sequence[Any], reading: Reading) -> Documents:
        pipeline = self._pipeline or Pipeline(kind="embedding")
        prompt = pipeline.prompt(reading.prompt_name)
        if isinstance(inputs[0], list):
            if pipeline.late:
                raise unsupported("a late-interaction model reads texts, not token ids")
            ids = self._own.ids(inputs)
            return Documents(self._shortened(ids, reading))
        if pipeline.late:  # cuts its texts by lengths of its own
            read = self._own.late(inputs, pipeline.late, prompt, reading.is_query, False)
            return Documents(list(read))
        skip = self._own.prompt_length(prompt, self.longest)
        pairs = [isinstance(text, tuple) for text in inputs]
        documents: list[Any] = [None] * len(inputs)
        for paired in set(pairs):
            places = [i for i, is_pair in enumerate(pairs) if is_pair == paired]
            some = [prefixed(inputs[i], prompt) for i in places]
            for i, document in zip(places, self._encoded(some, reading), strict=True):
                documents[i] = document
        return Documents(documents, skip)

    def _encoded(self, texts: list[Any], reading: Reading) -> list[Document]:
        source = self._inputs[reading.side] if reading.side else self._own
        if self._truncates(reading):
            return list(source.documents(texts, self.longest))
        documents = list(source.documents(texts, self.longest + 1))
        self._check_lengths(documents)
        return documents

    def _shortened(self, documents: list[Document], reading: Reading) -> list[Document]:
        """Documents of token ids, cut if they may be."""
        if not self._truncates(reading):
            self._check_lengths(documents)
            return documents
        left, most = reading.side == "left", self.longest
        return [Document(d.ids[-most:] if left else d.ids[:most]) for d in documents]

    def _truncates(self, reading: Reading) -> bool:
        return self._settings.auto_truncate if reading.truncate is None else reading.truncate

    def _check_lengths(self, documents: Sequence[Document]) -> None:
        for i, document in enumerate(documents):
            if len(document.ids) > self.longest:
                raise too_large(
                    f"input {i} has more than {self.longest:,} tokens; shorten it or set truncate"
                )

    @staticmethod
    def _cutting(bert: ModernBert, side: Side) -> Inputs:
        tokenizer = copy.copy(bert.inputs.tokenizer)
        tokenizer.truncation_side = side
        return Inputs(bert.config, bert.pipeline, lambda: tokenizer)

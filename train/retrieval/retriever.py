"""`Retriever`: what search, evaluation and mining need of a model that represents texts."""

from collections.abc import Iterable, Iterator
from typing import Any, Literal, Protocol

import numpy as np

from .blocks import Block

Side = Literal["query", "document"]


class Best(Protocol):
    """A search to which documents are added, such as `scoring.TopK`."""

    @property
    def documents(self) -> int:
        """Number of documents that were added."""

    def add(self, documents: Block) -> None:
        """Add the next documents, with the next numbers."""

    def results(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores float32 [Q, K] in descending order, and numbers of the documents int64 [Q, K].

        Of documents with equal scores the one with the smaller number comes first.
        """


class Retriever(Protocol):
    """A model that represents queries and documents, and compares them; see `encoding.TextEncoder`.

    Representations come as `blocks.Block`.
    """

    @property
    def name(self) -> str:
        """What errors call it."""

    @property
    def similarity(self) -> str:
        """Name of the comparison."""

    def facts(self, side: Side) -> dict[str, Any]:
        """Everything that representations depend on beside weights, texts and dtype, as JSON."""

    def blocks(self, texts: Iterable[str], side: Side) -> Iterator[Block]:
        """Representations of a stream of texts, in order and in bounded memory.

        Raises:
            UserError: they are not finite.
        """

    def encode(self, texts: Iterable[str], side: Side) -> Block:
        """Representations of all texts, which are packed together. Errors as `blocks`."""

    def best(self, queries: Block, k: int) -> Best:
        """Begin a search for the k best documents of every query."""

    def pairs(self, queries: Block, documents: Block) -> np.ndarray:
        """Scores of each query with the document of the same number: float32 [P]."""

    def with_lengths(self, query: int | None, document: int | None) -> "Retriever":
        """The same model with texts of at most so many tokens; None keeps the length of a side."""

    def symmetric(self) -> "Retriever":
        """The same model for texts that are neither queries nor documents."""

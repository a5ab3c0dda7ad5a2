"""Token vectors of queries and documents by a late-interaction model, compared by MaxSim.

encoder = TokenEncoder.load("model")
queries = encoder.encode(texts, "query")                  # a list of [tokens_i, E]
encoder.pairs(queries, encoder.encode(others, "document"))       # [P]
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.inference.text_model import Encoding
from modernbert_jax.pipeline import LateInteraction
from modernbert_jax.scoring import LateTopK, late_pairs

from .on_devices import RetrieverOnDevices, refuse_vectors
from .retriever import Side


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenEncoder(RetrieverOnDevices):
    """A late-interaction model on the devices of a mesh; its similarity is MaxSim or MeanMaxSim."""

    late: LateInteraction
    """Prefixes, lengths, expansion and skiplist."""

    @classmethod
    def settings(
        cls, checkpoint: convert.Checkpoint, query: Encoding, document: Encoding, name: str
    ) -> dict[str, Any]:
        pipeline = checkpoint.pipeline
        if pipeline is None or pipeline.late is None:
            raise UserError(f"{name}: is not a late-interaction model")
        refuse_vectors(query, document, f"{name}: has a vector for each token")
        late = pipeline.late
        late = dataclasses.replace(
            _with_lengths(late, query.max_length, document.max_length),
            query_prefix=late.query_prefix if query.prompt is None else query.prompt,
            document_prefix=late.document_prefix if document.prompt is None else document.prompt,
        )
        return {"similarity": pipeline.similarity or "MaxSim", "late": late}

    def with_lengths(self, query: int | None, document: int | None) -> "TokenEncoder":
        """As `retriever.Retriever`."""
        return dataclasses.replace(self, late=_with_lengths(self.late, query, document))

    def symmetric(self) -> "TokenEncoder":
        """The same: late interaction has no texts that are neither queries nor documents."""
        return self

    def facts(self, side: Side) -> dict[str, Any]:
        """Everything that vectors depend on beside weights, texts and dtype, as JSON."""
        pooling = self.model.pipeline and self.model.pipeline.token_pooling
        own = {"token_pooling": pooling and dataclasses.asdict(pooling)}
        return {"side": side, **dataclasses.asdict(self.late), **own}

    def blocks(self, texts: Iterable[str], side: Side) -> Iterator[list[np.ndarray]]:
        """Token vectors of a stream of texts, in order: lists of float32 [tokens_i, E].

        Raises:
            UserError: the model gives vectors that are not finite.
        """
        return self._vectors(texts, side, stream=True)

    def encode(self, texts: Iterable[str], side: Side) -> list[np.ndarray]:
        """Token vectors of all texts, which are packed together. Errors as `blocks`."""
        return [vectors for block in self._vectors(texts, side, stream=False) for vectors in block]

    def best(self, queries: Sequence[np.ndarray], k: int) -> LateTopK:
        """Begin a search for the k best documents of every query."""
        return LateTopK(queries, k, self._mean, self.model.runner.mesh)

    def pairs(self, queries: Sequence[np.ndarray], documents: Sequence[np.ndarray]) -> np.ndarray:
        """Scores of each query with the document of the same number: float32 [P]."""
        return late_pairs(queries, documents, self._mean, self.model.runner.mesh)

    @property
    def _mean(self) -> bool:
        return self.similarity == "MeanMaxSim"

    def _vectors(
        self, texts: Iterable[str], side: Side, stream: bool
    ) -> Iterator[list[np.ndarray]]:
        windows = self.model.tokens(
            self.params, texts, self.late, side == "query", self.batch_tokens, stream
        )
        return ([self.finite(vectors) for vectors in window] for window in windows)


def _with_lengths(
    late: LateInteraction, query: int | None, document: int | None
) -> LateInteraction:
    return dataclasses.replace(
        late,
        query_length=query or late.query_length,
        document_length=document or late.document_length,
    )

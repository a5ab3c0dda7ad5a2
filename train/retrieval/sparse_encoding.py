"""Sparse vectors of queries and documents by a sparse encoder, compared by their products.

encoder = SparseTextEncoder.load("model")
queries = encoder.encode(texts, "query")                          # a list of (ids, weights)
encoder.pairs(queries, encoder.encode(others, "document"))        # [P]
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from modernbert_jax import convert
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.inference.text_model import Encoding
from modernbert_jax.scoring import SparseTopK, sparse
from modernbert_jax.splade import SparseVector

from .on_devices import TwoSided, refuse_vectors, sides_of
from .retriever import Side


@dataclasses.dataclass(frozen=True, kw_only=True)
class SparseTextEncoder(TwoSided):
    """A sparse encoder on the devices of a mesh."""

    @classmethod
    def settings(
        cls, checkpoint: convert.Checkpoint, query: Encoding, document: Encoding, name: str
    ) -> dict[str, Any]:
        pipeline = checkpoint.pipeline
        if pipeline is None or pipeline.splade is None:
            raise UserError(f"{name}: is not a sparse model")
        similarity = pipeline.similarity or "dot"
        if similarity not in sparse.SIMILARITIES:
            known = did_you_mean(similarity, sparse.SIMILARITIES)
            raise UserError(f"{name}: similarity is {similarity!r}; {known}")
        refuse_vectors(query, document, f"{name}: has weights of ids")
        return {"similarity": similarity, "sides": sides_of(query, document, pipeline)}

    def facts(self, side: Side) -> dict[str, Any]:
        """Everything that vectors depend on beside weights, texts and dtype, as JSON."""
        encoding = self.sides[side]
        return {
            "prompt": self.prompt(side),
            "max_length": encoding.max_length,
            "max_active_dims": encoding.max_active_dims,
        }

    def blocks(self, texts: Iterable[str], side: Side) -> Iterator[list[SparseVector]]:
        """Vectors of a stream of texts, in order, in bounded memory.

        Raises:
            UserError: the model gives vectors that are not finite.
        """
        return map(self._checked, self._vectors(texts, side, stream=True))

    def encode(self, texts: Iterable[str], side: Side) -> list[SparseVector]:
        """Vectors of all texts, which are packed together. Errors as `blocks`."""
        (vectors,) = self._vectors(texts, side, stream=False)
        return self._checked(vectors)

    def best(self, queries: Sequence[SparseVector], k: int) -> SparseTopK:
        """Begin a search for the k best documents of every query."""
        return SparseTopK(queries, k, self.similarity)

    def pairs(self, queries: Sequence[SparseVector], documents: Sequence[SparseVector]) -> Any:
        """Similarities of each query with the document of the same number: float32 [P]."""
        return sparse.paired(queries, documents, self.similarity)

    def _checked(self, vectors: list[SparseVector]) -> list[SparseVector]:
        for vector in vectors:
            self.finite(vector.values)
        return vectors

    def _vectors(
        self, texts: Iterable[str], side: Side, stream: bool
    ) -> Iterator[list[SparseVector]]:
        return self.model.sparse(self.params, texts, self.sides[side], self.batch_tokens, stream)

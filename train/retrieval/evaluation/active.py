"""`ActiveWeights`: how many weights the sparse vectors of a search have."""

from collections import Counter

from ..blocks import Block
from ..retriever import Retriever, Side
from ..sparse_encoding import SparseTextEncoder

ACTIVE: dict[Side, str] = {"query": "active_query", "document": "active_document"}
"""Names in results, as in training, of the mean numbers of weights of queries and of documents."""


class ActiveWeights:
    """Counts the weights that are not zero; it observes a search, see `exact.Observer`."""

    def __init__(self) -> None:
        self._weights, self._texts = Counter[Side](), Counter[Side]()

    @classmethod
    def of(cls, model: Retriever | None) -> "ActiveWeights | None":
        """The counter for a sparse encoder; None for another model."""
        return cls() if isinstance(model, SparseTextEncoder) else None

    def __call__(self, side: Side, block: Block) -> None:
        self._weights[side] += sum(len(vector.indices) for vector in block)  # type: ignore[union-attr]
        self._texts[side] += len(block)

    def metrics(self) -> dict[str, float]:
        """Mean numbers of weights by the names of `ACTIVE`."""
        return {
            name: self._weights[side] / max(self._texts[side], 1) for side, name in ACTIVE.items()
        }

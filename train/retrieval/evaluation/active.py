"""`ActiveDims`: how many weights the sparse vectors of a search have."""

from collections import Counter

from ..blocks import Block
from ..retriever import Retriever, Side
from ..sparse_encoding import SparseTextEncoder

_NAMES: dict[Side, str] = {"query": "query", "document": "corpus"}
"""How sentence-transformers calls the sides."""

ACTIVE = tuple(f"{name}_active_dims" for name in _NAMES.values())
"""Numbers of active dimensions in results: of queries, of documents."""

NO_METRICS = (*ACTIVE, *(f"{name}_sparsity_ratio" for name in _NAMES.values()))
"""What `ActiveDims` adds to results, which is no quality."""


class ActiveDims:
    """Counts the weights that are not zero; it observes a search, see `exact.Observer`."""

    def __init__(self, vocabulary: int):
        """Args:
        vocabulary: number of ids that a vector may have.
        """
        self._vocabulary = vocabulary
        self._weights, self._texts = Counter[Side](), Counter[Side]()

    @classmethod
    def of(cls, model: Retriever | None) -> "ActiveDims | None":
        """The counter for a sparse encoder; None for another model."""
        if not isinstance(model, SparseTextEncoder):
            return None
        return cls(model.model.runner.programs["sparse"].width)

    def __call__(self, side: Side, block: Block) -> None:
        self._weights[side] += sum(len(vector.indices) for vector in block)  # type: ignore[union-attr]
        self._texts[side] += len(block)

    def metrics(self) -> dict[str, float]:
        """Means over texts by sentence-transformers' names: active dimensions of queries and of the
        corpus, and the shares of ids that have no weight (sparsity ratios).
        """
        active = [self._weights[side] / max(self._texts[side], 1) for side in _NAMES]
        values = [*active, *(1 - x / self._vocabulary for x in active)]
        return dict(zip(NO_METRICS, values, strict=True))

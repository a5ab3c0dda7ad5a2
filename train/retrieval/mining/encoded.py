"""Candidates by a model, whose representations of texts are stored as they are computed."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.io import fingerprint
from modernbert_jax.io.progress import LINE_SECONDS, Progress

from ..blocks import Block
from ..candidates import NONE, Candidates
from ..parts import Parts
from ..retriever import Retriever, Side
from ..stored_blocks import TEXTS, StoredBlocks
from .pool import Pool


@dataclasses.dataclass(frozen=True)
class EncodedSearcher:
    """A model as a first stage, whose representations of all texts are kept."""

    retriever: Retriever
    queries: StoredBlocks
    documents: StoredBlocks

    @classmethod
    def of(
        cls, retriever: Retriever, pool: Pool, cache: Path, facts: dict[str, Any]
    ) -> "EncodedSearcher":
        """Search the documents of a pool.

        Args:
            retriever: the model.
            pool: queries and documents.
            cache: folder of the representations.
            facts: everything that they depend on, beside `Retriever.facts`.
        """

        def stored(side: Side, texts: Sequence[str]) -> StoredBlocks:
            def compute(number: int) -> Block:
                return retriever.encode(texts[number * TEXTS : (number + 1) * TEXTS], side)

            own = {"side": side, **retriever.facts(side), "part": TEXTS}
            parts = Parts(cache, f"vectors-{side}", facts | own)
            return StoredBlocks(parts, len(texts), TEXTS, compute)

        return cls(retriever, stored("query", pool.queries), stored("document", pool.documents))

    @property
    def key(self) -> str:
        """Key of everything that the scores depend on."""
        keys = self.queries.parts.key, self.documents.parts.key
        return fingerprint.of_json([*keys, self.retriever.similarity])

    def encode(self) -> None:
        """Compute what is missing, and show the progress."""
        with Progress(self.queries.count + self.documents.count, of="text") as progress:
            done = 0
            for name, stored in (("documents", self.documents), ("queries", self.queries)):
                for number in stored.missing:
                    stored.part(number)
                    progress.update(
                        f"encode {name}", done + min((number + 1) * TEXTS, stored.count)
                    )
                done += stored.count

    def search(self, numbers: np.ndarray, k: int) -> Candidates:
        """As `stages.Searcher`."""
        best = self.retriever.best(self.queries.take(numbers), k)
        with Progress(self.documents.count, of="document", delay=LINE_SECONDS) as progress:
            for block in self.documents:
                best.add(block)
                progress.update("search", best.documents)
        scores, indices = best.results()
        missing = ((0, 0), (0, k - scores.shape[1]))
        return Candidates(
            np.pad(scores, missing, constant_values=-np.inf),
            np.pad(indices, missing, constant_values=NONE),
        )

    def pairs(self, numbers: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """As `stages.Searcher`."""
        return self.retriever.pairs(self.queries.take(numbers), self.documents.take(documents))

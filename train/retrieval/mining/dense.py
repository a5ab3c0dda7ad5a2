"""Candidates by the vectors of an encoder, which are stored as they are computed."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.io import fingerprint
from modernbert_jax.io.progress import LINE_SECONDS, Progress
from modernbert_jax.scoring import SIMILARITIES, top_k

from ..candidates import NONE, Candidates
from ..encoding import Side, TextEncoder
from ..parts import Parts
from .pool import Pool

TEXTS = 2048
"""Texts of a part, whose vectors are in one file."""


@dataclasses.dataclass(frozen=True)
class Vectors:
    """The vectors of many texts, in parts on disk."""

    parts: Parts
    count: int
    """Number of texts."""
    compute: Callable[[int], np.ndarray]
    """Function of the number of a part: its vectors [n, E]."""

    @classmethod
    def of(cls, parts: Parts, encoder: TextEncoder, texts: Sequence[str], side: Side) -> "Vectors":
        """Vectors of texts, of which none is computed yet."""

        def compute(number: int) -> np.ndarray:
            return encoder.encode(texts[number * TEXTS : (number + 1) * TEXTS], side)

        return cls(parts, len(texts), compute)

    def blocks(self) -> Iterator[np.ndarray]:
        """The vectors of all texts [n, E], part by part."""
        return map(self._part, range(-(-self.count // TEXTS)))

    def compute_all(self) -> Iterator[int]:
        """Compute the parts that are missing; yields the number of texts that are done."""
        for number in range(-(-self.count // TEXTS)):
            if not self.parts.path(number).exists():
                self._part(number)
            yield min(self.count, (number + 1) * TEXTS)

    def rows(self, numbers: np.ndarray) -> np.ndarray:
        """The vectors of some texts [n, E]; each part is read once."""
        parts, result = numbers // TEXTS, None
        for part in np.unique(parts):
            vectors = self._part(int(part))
            if result is None:
                result = np.empty((len(numbers), vectors.shape[1]), np.float32)
            here = parts == part
            result[here] = vectors[numbers[here] % TEXTS]
        return np.empty((0, 0), np.float32) if result is None else result

    def _part(self, number: int) -> np.ndarray:
        return self.parts.get(number, lambda: {"vectors": self.compute(number)})["vectors"]


@dataclasses.dataclass(frozen=True)
class Dense:
    """Search by vectors."""

    queries: Vectors
    documents: Vectors
    similarity: str
    """A key of `SIMILARITIES`."""

    @classmethod
    def of(cls, encoder: TextEncoder, pool: Pool, cache: Path, facts: dict[str, Any]) -> "Dense":
        """Search the documents of a pool by an encoder, whose vectors are kept.

        Args:
            encoder: the model.
            pool: queries and documents.
            cache: folder of the vectors.
            facts: everything that the vectors depend on, beside prompts and lengths.
        """

        def vectors(side: Side, texts: Sequence[str]) -> Vectors:
            limit = encoder.sides[side].max_length
            own = {"side": side, "prompt": encoder.prompt(side), "max_length": limit}
            parts = Parts(cache, f"vectors-{side}", facts | own | {"part": TEXTS})
            return Vectors.of(parts, encoder, texts, side)

        queries, documents = vectors("query", pool.queries), vectors("document", pool.documents)
        return cls(queries, documents, encoder.similarity)

    @property
    def key(self) -> str:
        """Key of everything that the scores depend on."""
        keys = self.queries.parts.key, self.documents.parts.key
        return fingerprint.of_json([*keys, self.similarity])

    def encode(self) -> None:
        """Compute the vectors that are missing, and show the progress."""
        total = self.queries.count + self.documents.count
        with Progress(total, of="text") as progress:
            for side, vectors, before in (
                ("documents", self.documents, 0),
                ("queries", self.queries, self.documents.count),
            ):
                for done in vectors.compute_all():
                    progress.update(f"encode {side}", before + done)

    def search(self, numbers: np.ndarray, k: int) -> Candidates:
        """The best documents of the queries with these numbers: [Q, k]."""
        vectors, total = self.queries.rows(numbers), self.documents.count
        with Progress(total, of="document", delay=LINE_SECONDS) as progress:

            def blocks() -> Iterator[np.ndarray]:
                done = 0
                for block in self.documents.blocks():
                    yield block
                    progress.update("search", done := done + len(block))

            found = top_k(vectors, blocks(), k, self.similarity)
        missing = ((0, 0), (0, k - found[0].shape[1]))
        return Candidates(
            np.pad(found[0], missing, constant_values=-np.inf),
            np.pad(found[1], missing, constant_values=NONE),
        )

    def pairs(self, numbers: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Scores of pairs of a query and a document, by their numbers [P]: float32 [P]."""
        queries, others = self.queries.rows(numbers), self.documents.rows(documents)
        of = SIMILARITIES[self.similarity]
        scores = [of(q[None], d[None])[0, 0] for q, d in zip(queries, others, strict=True)]
        return np.array(scores, np.float32)

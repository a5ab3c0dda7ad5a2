"""`Pool`: the queries with their positives, and the documents that may become negatives.

Documents are the texts of the corpus and the positives, each once, in the order in which they first
occur. They are kept in a folder on disk, because a corpus may be larger than the memory.
"""

import dataclasses
import hashlib
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import whole_directory

from ...tasks import Problems
from ..data import TextExample, ids
from .select import NONE
from .texts import TextFile, write

_ARRAYS = "pool.npz"


@dataclasses.dataclass(frozen=True)
class Pool:
    """Numbered queries and documents."""

    queries: TextFile
    documents: TextFile
    positives: np.ndarray
    """int64 [P], numbers of documents, by query."""
    starts: np.ndarray
    """int64 [Q + 1]: positives of query i are those from `starts[i]` to `starts[i + 1]`."""
    same: np.ndarray
    """int64 [Q], number of the document with the text of the query, or `NONE`."""

    def positives_of(self, query: int) -> np.ndarray:
        """Numbers of the documents that are positives of a query."""
        return self.positives[self.starts[query] : self.starts[query + 1]]

    def pairs(self, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Every query [P] with each of its positives [P], for consecutive queries."""
        counts = self.starts[queries + 1] - self.starts[queries]
        first, last = self.starts[queries[0]], self.starts[queries[-1] + 1]
        return np.repeat(queries, counts), self.positives[first:last]

    def excluded(self, query: int) -> np.ndarray:
        """Numbers of the documents that are no negatives of a query: its positives and itself."""
        return np.append(self.positives_of(query), self.same[query])

    @property
    def most_positives(self) -> int:
        """The largest number of positives of a query."""
        return int(np.diff(self.starts).max())

    @classmethod
    def open(cls, folder: Path) -> "Pool":
        """Open a pool that `build` has written."""
        with np.load(folder / _ARRAYS, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        documents = TextFile(folder / "documents", arrays.pop("documents"))
        return cls(queries=TextFile(folder / "queries"), documents=documents, **arrays)


def build(
    folder: Path, examples: Sequence[TextExample], corpus: ids.Paths | None, name: str
) -> None:
    """Write the pool of some examples.

    Args:
        folder: to write; it appears when it is complete.
        examples: of which the first two texts are the query and a positive. If the first positive
            is the id of a document in the corpus, all are ids.
        corpus: files of more documents, as `ids.texts` reads them; empty ones are left out.
        name: of the corpus in errors.

    Raises:
        UserError: all problems together: damaged rows of the corpus, ids that occur twice or are
            missing, a positive that is equal to its query.
    """
    problems = Problems()
    with whole_directory(folder) as place:
        (place / "documents").mkdir()
        (place / "queries").mkdir()
        digests = array("Q")
        wanted = {example.texts[1] for example in examples}
        named: dict[str, int] = {}

        def documents() -> Iterator[str]:
            for row in ids.unique(corpus, problems) if corpus else ():
                digests.append(_digest(row.text) if row.text.strip() else 0)
                if row.id in wanted:
                    named[row.id] = digests[-1]
                yield row.text
            problems.check()
            if examples[0].texts[1] not in named:
                named.clear()
                for example in examples:
                    named.setdefault(example.texts[1], _digest(example.texts[1]))
                for text in dict.fromkeys(example.texts[1] for example in examples):
                    digests.append(_digest(text))
                    yield text

        write(place / "documents", documents())
        values, firsts = np.unique(np.frombuffer(digests, np.uint64), return_index=True)
        if len(values) and not values[0]:
            values, firsts = values[1:], firsts[1:]
        order = np.argsort(firsts)
        number = np.empty(len(order), np.int64)
        number[order] = np.arange(len(order))
        by_digest = (values, number)

        positives: dict[str, dict[int, None]] = {}
        for example in examples:
            query, positive = example.texts[:2]
            with problems.at(example.place):
                if positive not in named:
                    raise UserError(ids.missing_id(positive, name))
                found = int(_look_up(by_digest, [named[positive]])[0])
                if found == NONE:
                    raise UserError(f"the text of id {positive!r} is empty")
                if named[positive] == _digest(query):
                    raise UserError("'positive' is equal to its query; it must be another text")
                positives.setdefault(query, {})[found] = None
        problems.check()
        write(place / "queries", positives)
        lists = [np.fromiter(p, np.int64) for p in positives.values()]
        np.savez(
            place / _ARRAYS,
            documents=firsts[order].astype(np.int64),
            positives=np.concatenate(lists),
            starts=np.cumsum([0, *map(len, lists)]),
            same=_look_up(by_digest, [_digest(query) for query in positives]),
        )


def _digest(text: str) -> int:
    """A number for a text without the spaces around it; never 0."""
    digest = hashlib.blake2b(text.strip().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def _look_up(by_digest: tuple[np.ndarray, np.ndarray], digests: Sequence[int]) -> np.ndarray:
    """Numbers of the documents with these digests, or `NONE`."""
    values, number = by_digest
    wanted = np.array(digests, np.uint64)
    if not len(values):
        return np.full(len(wanted), NONE)
    at = np.minimum(np.searchsorted(values, wanted), len(values) - 1)
    return np.where(values[at] == wanted, number[at], NONE)

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
from ..candidates import NONE
from ..data import TextExample, ids
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
    folder: Path, examples: Sequence[TextExample], corpus: ids.Paths, name: str | Path
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
        for part in ("documents", "queries"):
            (place / part).mkdir()
        digests, known = array("Q"), dict[str, int]()
        write(place / "documents", _documents(examples, corpus, digests, known, problems))
        numbers = _Numbers(np.frombuffer(digests, np.uint64))
        positives: dict[str, dict[int, None]] = {}
        for example in examples:
            with problems.at(example.place):
                query, positive = example.texts[:2]
                number = _positive(query, positive, known, numbers, name)
                positives.setdefault(query, {})[number] = None
        problems.check()
        write(place / "queries", positives)
        lists = [np.fromiter(p, np.int64) for p in positives.values()]
        np.savez(
            place / _ARRAYS,
            documents=numbers.rows,
            positives=np.concatenate(lists),
            starts=np.cumsum([0, *map(len, lists)]),
            same=numbers.of([_digest(query) for query in positives]),
        )


def _documents(
    examples: Sequence[TextExample],
    corpus: ids.Paths,
    digests: array,
    known: dict[str, int],
    problems: Problems,
) -> Iterator[str]:
    """Yield the corpus and the positives, and collect digests of all of them.

    Args:
        examples: the positives, as texts or ids.
        corpus: files of documents.
        digests: receives the digest of each document; 0 if it is empty.
        known: receives the digest of each positive by its text or id, as the examples have it.
        problems: of the corpus; raised after its last row.
    """
    positives = dict.fromkeys(example.texts[1] for example in examples)
    for row in ids.unique(corpus, problems):
        digests.append(_digest(row.text) if row.text.strip() else 0)
        if row.id in positives:
            known[row.id] = digests[-1]
        yield row.text
    problems.check()
    if next(iter(positives)) not in known:  # they are texts
        known.clear()
        for text in positives:
            known[text] = _digest(text)
            digests.append(known[text])
            yield text


class _Numbers:
    """Numbers of documents, of which equal ones have the same, in the order of first occurrence."""

    def __init__(self, digests: np.ndarray):
        """Number the rows with these digests; those of 0 have no number."""
        self._digests, first = np.unique(digests, return_index=True)
        if len(first) and not self._digests[0]:
            self._digests, first = self._digests[1:], first[1:]
        order = np.argsort(first)
        self.rows = first[order].astype(np.int64)
        """The first row of each number."""
        self._numbers = np.empty(len(order), np.int64)
        self._numbers[order] = np.arange(len(order))

    def of(self, digests: Sequence[int]) -> np.ndarray:
        """Numbers of the documents with these digests, or `NONE`."""
        wanted = np.array(digests, np.uint64)
        at = np.minimum(np.searchsorted(self._digests, wanted), len(self._digests) - 1)
        return np.where(self._digests[at] == wanted, self._numbers[at], NONE)


def _positive(
    query: str, positive: str, known: dict[str, int], numbers: _Numbers, corpus: str | Path
) -> int:
    """The number of a positive. Raises `UserError` if it cannot be one."""
    if positive not in known:
        raise UserError(ids.missing_id(positive, corpus))
    if not known[positive]:
        raise UserError(f"the text of id {ids.quoted(positive)} is empty")
    if known[positive] == _digest(query):
        raise UserError("'positive' is equal to its query; it must be another text")
    return int(numbers.of([known[positive]])[0])


def _digest(text: str) -> int:
    """A number for a text without the spaces around it; never 0."""
    digest = hashlib.blake2b(text.strip().encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1

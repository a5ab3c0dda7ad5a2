"""Exact search by MaxSim: the best documents of every query, over a corpus of any size.

Documents come as lists of token vectors. They are packed into rows of one length, which the devices
of a mesh divide, and the best of a block are merged with the best of all blocks before. So memory
holds a block and k results for each query, whatever the size of the corpus.
"""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax import devices
from modernbert_jax.errors import UserError
from modernbert_jax.packing import pack, power_of_two
from modernbert_jax.sharding import RULES, global_array, row_pieces

from . import best
from .interaction import Texts, maxsim, paired_maxsim

TOKENS = 2**16
"""Tokens of the documents of a block on each device, unless one document has more."""

QUERY_TOKENS = 2**14
"""Tokens of the queries that are compared with a block at a time, unless one query has more."""

_SHORTEST = 32
"""Tokens of the shortest rows of documents, and of queries."""


class Rows(NamedTuple):
    """Texts in packed rows; see `interaction.maxsim`."""

    vectors: np.ndarray
    """Float32 [rows, T, E]."""
    segment_ids: np.ndarray
    """Int32 [rows, T]."""
    numbers: np.ndarray
    """Number of each text, int32 [rows, S]; `capacity` for none."""
    capacity: int
    """Number of numbers: a power of two."""


class LateTopK:
    """A search by MaxSim to which documents are added, like `exact_search.TopK`."""

    def __init__(
        self, queries: Sequence[np.ndarray], k: int, mean: bool = False, mesh: Mesh | None = None
    ):
        """Begin a search.

        Args:
            queries: token vectors [tokens_i, E] of each query.
            k: number of documents for each query.
            mean: whether scores are divided by the number of the query's tokens (MeanMaxSim).
            mesh: devices that share the work; None is all devices of this process.

        Raises:
            UserError: a k below 1, or vectors of different widths.
        """
        if k < 1:
            raise UserError(f"k is {k}; it must be 1 or more")
        self._mesh = devices.local_mesh() if mesh is None else mesh
        self._k, self._mean, self._count = k, mean, len(queries)
        self._width = _width(queries, None, "queries")
        whole = NamedSharding(self._mesh, P())
        parts = [dense(part, self._width) for part in _in_parts(queries)]
        self._parts = [tuple(global_array(x, whole) for x in part) for part in parts]
        self._best: list[best.Best] = []
        self._waiting: list[np.ndarray] = []
        self._waiting_tokens = self._searched = 0

    @property
    def documents(self) -> int:
        """Number of documents that were added."""
        return self._searched + len(self._waiting)

    def add(self, documents: Sequence[np.ndarray]) -> None:
        """Add the next documents, token vectors [tokens_i, E] each, with the next numbers.

        Raises:
            UserError: vectors of another width than those of the queries.
        """
        self._width = _width(documents, self._width if self._count else None, "documents")
        for document in documents:
            self._waiting.append(document)
            self._waiting_tokens += len(document)
            if self._waiting_tokens >= TOKENS * self._mesh.size:
                self._search()

    def results(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the best documents so far, as `exact_search.top_k` returns them.

        The score of a document without vectors is 0.
        """
        if self._waiting:
            self._search()
        return best.results(self._best, self._count, min(self._k, self._searched))

    def _search(self) -> None:
        """Merge the waiting documents into the results, after those of the block before."""
        jax.block_until_ready(self._best)
        rows = packed(self._waiting, self._width, row_pieces(self._mesh.shape))
        first, count = np.int32(self._searched), np.int32(len(self._waiting))
        k = best.width(self._k, self._searched + len(self._waiting))
        if not self._searched:
            self._best = [best.nothing(len(part[0]), k, self._mesh) for part in self._parts]
        step = _program(self._mesh, rows.capacity, self._mean, k)
        with jax.set_mesh(self._mesh):
            placed = _placed(rows, self._mesh)
            self._best = [
                step(before, *part, *placed, first, count)
                for before, part in zip(self._best, self._parts, strict=True)
            ]
        self._searched += len(self._waiting)
        self._waiting, self._waiting_tokens = [], 0


def late_pairs(
    queries: Sequence[np.ndarray],
    documents: Sequence[np.ndarray],
    mean: bool = False,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """MaxSim of each query with the document of the same number: float32 [P].

    Args:
        queries: token vectors [tokens_i, E] of each query.
        documents: the same of the documents; the score of one without vectors is 0.
        mean: whether scores are divided by the number of the query's tokens (MeanMaxSim).
        mesh: devices that share the work; None is all devices of this process.

    Raises:
        UserError: different numbers of queries and documents, or vectors of different widths.
    """
    if len(queries) != len(documents):
        raise UserError(f"{len(queries)} queries and {len(documents)} documents are no pairs")
    mesh = devices.local_mesh() if mesh is None else mesh
    width = _width(documents, _width(queries, None, "queries"), "documents")
    scores, pieces = [np.zeros(0, np.float32)], row_pieces(mesh.shape)
    pairs = list(zip(queries, documents, strict=True))
    for part in _cut(pairs, [len(q) + len(d) for q, d in pairs], TOKENS * mesh.size):
        own_queries, own_documents = zip(*part, strict=True)
        rows = packed(own_documents, width, pieces)
        # Queries in the order of the documents, which is fastest.
        order = rows.numbers[rows.numbers < rows.capacity]
        dense_queries = dense([own_queries[i] for i in order], width)
        query_of = np.full(rows.capacity, -1, np.int32)
        query_of[order] = np.arange(len(order))
        with jax.set_mesh(mesh):
            program = _pair_program(mesh, rows.capacity, mean)
            own = program(*dense_queries, *_placed(rows, mesh), query_of)
        scores.append(np.asarray(own)[: len(part)])
    return np.concatenate(scores)


def dense(texts: Sequence[np.ndarray], width: int) -> tuple[np.ndarray, np.ndarray]:
    """One text a row: vectors float32 [N, T, E] and segment ids int32 [N, T].

    N and T are powers of two, so that few programs are compiled.
    """
    length = power_of_two(max([_SHORTEST, *(len(text) for text in texts)]))
    vectors = np.zeros((power_of_two(max(len(texts), 1)), length, width), np.float32)
    segment_ids = np.zeros(vectors.shape[:2], np.int32)
    for number, text in enumerate(texts):
        vectors[number, : len(text)] = text
        segment_ids[number, : len(text)] = 1
    return vectors, segment_ids


def packed(texts: Sequence[np.ndarray], width: int, pieces: int) -> Rows:
    """Several texts a row, in rows of a shape of which there are few.

    Args:
        texts: token vectors [tokens_i, E].
        width: dimensions, E.
        pieces: devices that divide the rows.
    """
    lengths = [len(text) for text in texts]
    length = power_of_two(max(_SHORTEST, *lengths))
    some = [i for i, n in enumerate(lengths) if n]
    rows = [[some[i] for i in row] for row in pack([lengths[i] for i in some], length)]
    number = pieces * power_of_two(max(1, math.ceil(len(rows) / pieces)))
    capacity = power_of_two(max(1, len(texts)))
    most = power_of_two(max([1, *(len(row) for row in rows)]))
    vectors = np.zeros((number, length, width), np.float32)
    segment_ids = np.zeros((number, length), np.int32)
    numbers = np.full((number, most), capacity, np.int32)
    for r, row in enumerate(rows):
        start = 0
        for s, i in enumerate(row):
            end = start + lengths[i]
            vectors[r, start:end], segment_ids[r, start:end] = texts[i], s + 1
            numbers[r, s], start = i, end
    return Rows(vectors, segment_ids, numbers, capacity)


def _placed(rows: Rows, mesh: Mesh) -> tuple[jax.Array, ...]:
    """The arrays of rows, divided among the devices."""
    return tuple(
        global_array(x, NamedSharding(mesh, RULES.spec("rows", *(None for _ in x.shape[1:]))))
        for x in rows[:3]
    )


def _one_a_row(count: int) -> Texts:
    return Texts(jnp.arange(count, dtype=jnp.int32)[:, None], count)


@functools.lru_cache(maxsize=64)
def _program(mesh: Mesh, documents: int, mean: bool, k: int) -> Callable[..., best.Best]:
    """The compiled merge of a block into the k results of some queries."""

    def step(before, q, q_segments, d, d_segments, places, first, count):
        new = maxsim(
            *(q, q_segments, d, d_segments),
            queries=_one_a_row(len(q)),
            documents=Texts(places, documents),
            mean=mean,
        )
        new = jnp.where(jnp.arange(documents) < count, new, -jnp.inf)
        new, own = jax.lax.top_k(new, min(k, documents))
        return best.merged(before, new, first + own, k)

    return jax.jit(step, out_shardings=NamedSharding(mesh, P()))


@functools.lru_cache(maxsize=64)
def _pair_program(mesh: Mesh, documents: int, mean: bool) -> Callable[..., jax.Array]:
    """The compiled scores of pairs."""

    def scores(q, q_segments, d, d_segments, places, query_of):
        return paired_maxsim(
            *(q, q_segments, d, d_segments, query_of),
            queries=_one_a_row(len(q)),
            documents=Texts(places, documents),
            mean=mean,
        )

    return jax.jit(scores, out_shardings=NamedSharding(mesh, P()))


def _in_parts(queries: Sequence[np.ndarray]) -> Iterator[Sequence[np.ndarray]]:
    longest = power_of_two(max([_SHORTEST, *(len(query) for query in queries)]))
    return _cut(queries, [longest] * len(queries), QUERY_TOKENS)


def _cut(items: Sequence, sizes: Sequence[int], most: int) -> Iterator[Sequence]:
    """Consecutive items whose sizes add up to at most so much, but at least one item."""
    start = total = 0
    for i, size in enumerate(sizes):
        if i > start and total + size > most:
            yield items[start:i]
            start, total = i, 0
        total += size
    if start < len(items):
        yield items[start:]


def _width(texts: Sequence[np.ndarray], width: int | None, what: str) -> int:
    """The one width of token vectors. Raises `UserError` for another."""
    for text in texts:
        if np.ndim(text) != 2:
            raise UserError(f"{what} have shape {np.shape(text)}; they must be [tokens, E] each")
        width = text.shape[1] if width is None else width
        if text.shape[1] != width:
            raise UserError(f"{what} have width {text.shape[1]}; others have width {width}")
    return 1 if width is None else width

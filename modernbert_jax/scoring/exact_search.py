"""Exact search: the most similar documents of every query, over a corpus of any size.

Documents come in blocks, which are divided among the devices of a mesh. Each device finds the best
of its own documents, and these are merged with the best of all blocks before. So memory holds a
block and k results for each query, whatever the size of the corpus.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax import devices
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.packing import power_of_two
from modernbert_jax.sharding import global_array

from . import best
from .pairwise import product, unit

BLOCK = 16_384
"""Documents on each device at a time, at most."""

QUERIES = 1_024
"""Queries that are compared with a block at a time: 64 MB of similarities on each device."""

_SHORTEST = 256
"""Documents of the shortest block on each device. Shorter ones are padded."""

_GROUP = 16
"""Documents of a group, of which the best one is compared first."""

_AHEAD = 2
"""Blocks that are started before the first one's results have to be there."""


def top_k(
    queries: np.ndarray,
    blocks: Iterable[np.ndarray],
    k: int,
    similarity: str = "cosine",
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar documents of every query, exactly, in float32.

    Args:
        queries: vectors [Q, E].
        blocks: vectors [n, E] of all documents in order, in pieces of any size; read one by one.
        k: number of documents for each query.
        similarity: a key of `scoring.SIMILARITIES`.
        mesh: devices that share the work; None is all devices of this process.

    Returns:
        Similarities float32 [Q, K] in descending order, and numbers of the documents int64 [Q, K],
        where K is k, or the number of documents if that is smaller. Of equally similar documents
        the one with the smaller number comes first.

    Raises:
        UserError: an unknown similarity, a k below 1, or vectors of different widths.
    """
    search = TopK(queries, k, similarity, mesh)
    for block in blocks:
        search.add(block)
    return search.results()


class TopK:
    """A search to which documents are added."""

    def __init__(
        self, queries: np.ndarray, k: int, similarity: str = "cosine", mesh: Mesh | None = None
    ):
        """Begin a search; arguments and errors as `top_k`."""
        if similarity not in _MATRICES:
            known = did_you_mean(similarity, _MATRICES)
            raise UserError(f"similarity is {similarity!r}; {known}")
        if k < 1:
            raise UserError(f"k is {k}; it must be 1 or more")
        queries = np.asarray(queries, np.float32)
        if queries.ndim != 2:
            raise UserError(f"queries have shape {queries.shape}; they must be vectors [Q, E]")
        self._mesh = devices.local_mesh() if mesh is None else mesh
        self._k, self._similarity = k, similarity
        self._count, self._width = len(queries), queries.shape[1]
        whole = NamedSharding(self._mesh, P())
        # The length of a part is a power of two, so that searches share their programs.
        self._length = min(QUERIES, power_of_two(max(self._count, 8)))
        self._queries = [global_array(part, whole) for part in _parts(queries, self._length)]
        self._best: list[best.Best] = []
        self._started: collections.deque[Any] = collections.deque()
        self._waiting: list[np.ndarray] = []
        self._waiting_count = self._searched = 0

    @property
    def documents(self) -> int:
        """Number of documents that were added."""
        return self._searched + self._waiting_count

    def add(self, documents: np.ndarray) -> None:
        """Add the next documents, vectors [n, E], with the next numbers.

        Raises:
            UserError: vectors of another width than those of the queries.
        """
        documents = np.asarray(documents, np.float32)
        if documents.ndim != 2 or documents.shape[1] != self._width:
            raise UserError(
                f"documents have shape {documents.shape}; queries have width {self._width}"
            )
        self._waiting.append(documents)
        self._waiting_count += len(documents)
        whole = BLOCK * self._mesh.size
        while self._waiting_count >= whole:
            waiting = np.concatenate(self._waiting)
            self._search(waiting[:whole])
            self._waiting = [waiting[whole:]]
            self._waiting_count = len(waiting) - whole

    def results(self) -> tuple[np.ndarray, np.ndarray]:
        """Similarities and numbers of the best documents so far, as `top_k` returns them."""
        if self._waiting_count:
            self._search(np.concatenate(self._waiting))
            self._waiting, self._waiting_count = [], 0
        return best.results(self._best, self._count, min(self._k, self._searched))

    def _search(self, documents: np.ndarray) -> None:
        """Merge a block of at most `BLOCK` documents for each device into the results."""
        pieces = self._mesh.size
        own = min(BLOCK, power_of_two(max(-(-len(documents) // pieces), _SHORTEST)))
        (block,) = _parts(documents, own * pieces)
        sharded = global_array(block, NamedSharding(self._mesh, P(self._mesh.axis_names)))
        k = best.width(self._k, self._searched + len(documents))
        if not self._searched:
            self._best = [best.nothing(self._length, k, self._mesh)] * len(self._queries)
        step = _program(self._mesh, self._similarity, k)
        first, count = np.int32(self._searched), np.int32(len(documents))
        self._best = [
            step(before, queries, sharded, first, count)
            for before, queries in zip(self._best, self._queries, strict=True)
        ]
        self._searched += len(documents)
        self._started.append(self._best)
        if len(self._started) > _AHEAD:
            jax.block_until_ready(self._started.popleft())


@functools.lru_cache(maxsize=16)
def _program(mesh: Mesh, similarity: str, k: int) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """The compiled merge of a block into the k results of some queries."""
    axes = mesh.axis_names

    def own(queries: jax.Array, documents: jax.Array, count: jax.Array):
        """The best of this device's documents: similarities and numbers in the block [Q, K]."""
        n = documents.shape[0]
        start = jax.lax.axis_index(axes) * n
        scores = _MATRICES[similarity](queries, documents)
        scores = jnp.where(start + jnp.arange(n) < count, scores, -jnp.inf)
        scores, places = _best(scores, min(k, n))
        return scores, start + places

    def step(before, queries, documents, first, count):
        new, places = jax.shard_map(
            own,
            mesh=mesh,
            in_specs=(P(), P(axes), P()),
            out_specs=P(None, axes),
            check_vma=False,
        )(queries, documents, count)
        return best.merged(before, new, first + places, k)

    return jax.jit(step, out_shardings=NamedSharding(mesh, P()))


def _best(scores: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """As `jax.lax.top_k` of [Q, n], faster where k is much smaller than n.

    The k best are in the k groups with the best first member: each other member of the k best is
    beaten by less than k groups. Equals keep their order, because the groups are put in theirs.
    """
    n = scores.shape[1]
    if n % _GROUP or n // _GROUP <= k:
        return jax.lax.top_k(scores, k)
    grouped = scores.reshape(-1, n // _GROUP, _GROUP)
    groups = jnp.sort(jax.lax.top_k(grouped.max(-1), k)[1], axis=-1)  # [Q, k]
    members = jnp.take_along_axis(grouped, groups[..., None], 1).reshape(-1, k * _GROUP)
    highest, places = jax.lax.top_k(members, k)
    groups = jnp.take_along_axis(groups, places // _GROUP, 1)
    return highest, groups * _GROUP + places % _GROUP


_MATRICES: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "cosine": lambda a, b: product(unit(a), unit(b)),
    "dot": product,
    "euclidean": lambda a, b: -jnp.sqrt(jnp.square(a[:, None] - b).sum(-1)),
    "manhattan": lambda a, b: -jnp.abs(a[:, None] - b).sum(-1),
}
"""Similarities of [Q, E] and [n, E] by name: [Q, n]. They equal those of `SIMILARITIES`."""


def _parts(vectors: np.ndarray, length: int) -> Iterator[np.ndarray]:
    """Pieces of so many vectors; the last one is padded with zeros."""
    for start in range(0, len(vectors), length):
        part = vectors[start : start + length]
        yield np.pad(part, ((0, length - len(part)), (0, 0)))

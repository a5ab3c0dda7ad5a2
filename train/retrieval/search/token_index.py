"""Approximate search by tokens: an HNSW index proposes documents, and MaxSim ranks them.

The way in which the ModernBERT paper evaluates late interaction, as PyLate does with Voyager: the
nearest tokens of each of the query's tokens are looked up, and the documents that they belong to
are scored with all their tokens.
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError, first_line
from modernbert_jax.io.files import whole_file, write_json
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.io.progress import Progress
from modernbert_jax.io.typed_json import differences

from ..data import Run
from ..retriever import Retriever
from .config import Searching
from .exact import run_of
from .stored import StoredCorpus

SAVED = 64
"""Parts of the corpus after which an index that is being built is saved, so that it resumes."""

ADDED = 4096
"""Tokens that are put into an index between two updates of the progress."""

PAIRS = 8192
"""Documents that are scored at a time, at most, unless one query has more candidates."""


def search_index(
    path: Path,
    options: Searching,
    facts: Mapping[str, Any],
    encoder: Retriever,
    corpus: StoredCorpus,
    queries: Mapping[str, str],
    k: int,
    *,
    exclude_self: bool = False,
) -> Run:
    """As `exact.search_blocks`, over the documents that an index of tokens proposes.

    Args:
        path: file of the index, which is built if it does not exist or is not complete; FILE.json
            says what it depends on, FILE.npy which tokens belong to which document.
        options: of the index and of the search in it.
        facts: everything that the vectors of the corpus depend on.
        encoder: a late-interaction model.
        corpus: whose vectors are indexed.

    Raises:
        UserError: Voyager is not installed, or the index is one of other settings.
    """
    voyager = library()
    index, starts = _opened(voyager, path, options, facts, corpus)
    vectors = encoder.encode(queries.values(), "query")
    most = min(options.index_neighbours, starts[-1])
    depth = max(options.index_depth, most)
    scores = np.full((len(vectors), k + exclude_self), -np.inf, np.float32)
    numbers = np.full(scores.shape, -1, np.int64)
    with Progress(len(vectors), of="query") as progress:
        for some in _groups(index, starts, vectors, int(most), depth):
            of = [q for q, documents in some for _ in documents]
            documents = np.concatenate([documents for _, documents in some])
            scored = encoder.pairs([vectors[q] for q in of], corpus.take(documents))
            end = 0
            for q, own in some:
                begin, end = end, end + len(own)
                # Stable, so that of equal scores the document with the smaller number comes first.
                best = np.argsort(-scored[begin:end], kind="stable")[: scores.shape[1]]
                scores[q, : len(best)] = scored[begin:end][best]
                numbers[q, : len(best)] = own[best]
            progress.update("search", some[-1][0] + 1)
    return run_of([*queries], scores, numbers, corpus.ids, k, exclude_self)


def _groups(
    index: Any, starts: np.ndarray, vectors: list[np.ndarray], most: int, depth: int
) -> Iterator[list[tuple[int, np.ndarray]]]:
    """Queries with the numbers of their candidates in ascending order, some at a time."""
    group: list[tuple[int, np.ndarray]] = []
    size = 0
    for q, tokens in enumerate(vectors):
        found, _ = index.query(tokens, k=most, query_ef=depth)
        own = np.unique(np.searchsorted(starts, found.reshape(-1).astype(np.int64), "right") - 1)
        if group and size + len(own) > PAIRS:
            yield group
            group, size = [], 0
        group.append((q, own))
        size += len(own)
    if group:
        yield group


def _opened(
    voyager: Any, path: Path, options: Searching, facts: Mapping[str, Any], corpus: StoredCorpus
) -> tuple[Any, np.ndarray]:
    """The complete index, and where the tokens of each document start, int64 [documents + 1]."""
    own = {**facts, "links": options.index_links, "depth": options.index_depth}
    beside, counts = (path.with_name(f"{path.name}.{end}") for end in ("json", "npy"))
    index: Any = None
    lengths: list[np.ndarray] = []
    sizes: list[tuple[int, int]] = []  # of each part: documents and tokens
    if path.exists() and beside.exists():
        state = read_json(beside)
        sizes = [*map(tuple, state.pop("sizes", []))]
        if changed := differences(state, own):
            raise UserError(
                f"{path}: is an index of other settings ({'; '.join(changed)});"
                " name another --index, or remove it"
            )
        index, lengths, sizes = _loaded(voyager, path, counts, sizes)
    saved = len(sizes)

    def save() -> None:
        """Store what the index holds before the index, which may then lag behind."""
        with whole_file(counts) as temporary, temporary.open("wb") as file:
            np.save(file, np.concatenate(lengths))
        write_json(beside, {**own, "sizes": sizes})
        with whole_file(path) as temporary:
            index.save(str(temporary))

    with Progress(corpus.count, of="document") as progress:
        for block in corpus.blocks(len(sizes)):
            flat = np.concatenate(block)
            if index is None:
                index = voyager.Index(
                    voyager.Space.InnerProduct,
                    num_dimensions=flat.shape[1],
                    M=options.index_links,
                    ef_construction=options.index_depth,
                )
            before, first = map(sum, zip((0, 0), *sizes, strict=True))
            own_lengths = np.array([len(text) for text in block], np.int64)
            ends = np.cumsum(own_lengths)
            for start in range(0, len(flat), ADDED):
                some = flat[start : start + ADDED]
                index.add_items(some, ids=range(first + start, first + start + len(some)))
                documents = int(np.searchsorted(ends, start + len(some), "right"))
                progress.update("build index", before + documents)
            lengths.append(own_lengths)
            sizes.append((len(block), len(flat)))
            if len(sizes) - saved == SAVED:
                save()
                saved = len(sizes)
        if len(sizes) > saved:
            save()
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(lengths))])
    if not starts[-1]:
        raise UserError(f"{path}: no document has a token whose vector counts")
    return index, starts


def _loaded(
    voyager: Any, path: Path, counts: Path, sizes: list[tuple[int, int]]
) -> tuple[Any, list[np.ndarray], list[tuple[int, int]]]:
    """The index in a file, the lengths of its documents, and the sizes of its parts.

    Args:
        counts: file of the lengths of at least its documents.
        sizes: of at least its parts, documents and tokens each.
    """
    try:
        index = voyager.Index.load(str(path))
        lengths = np.load(counts, allow_pickle=False)
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_line(error)}); remove it, or name another --index"
        ) from None
    done = int(np.searchsorted(np.cumsum([tokens for _, tokens in sizes]), len(index), "right"))
    return index, [lengths[: sum(n for n, _ in sizes[:done])]], sizes[:done]


def library() -> Any:
    """The module voyager. Raises `UserError` if it is not installed."""
    try:
        return importlib.import_module("voyager")
    except ImportError:
        raise UserError(
            "--index of a late-interaction model needs the package voyager; install it with:"
            " pip install 'modernbert-jax[retrieval]'"
        ) from None

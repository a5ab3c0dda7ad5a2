"""Approximate search by tokens: an HNSW index proposes documents, and MaxSim ranks them.

The way in which the ModernBERT paper evaluates late interaction, as PyLate does with Voyager: the
nearest tokens of each of the query's tokens are looked up, and the documents that they belong to
are scored with all their tokens.
"""

import importlib
import time
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

SAVED = 300.0
"""Seconds after which an index that is being built is saved, so that it resumes; longer where that
would be more than a tenth of the time."""

ADDED = 4096
"""Tokens that are put into an index at a time, by all threads of the machine."""

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
            says what it depends on. Once complete, FILE.npy has where each document starts.
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
    beside, complete = (path.with_name(f"{path.name}.{end}") for end in ("json", "npy"))
    index: Any = None
    if path.exists() and beside.exists():
        if changed := differences(read_json(beside), own):
            raise UserError(
                f"{path}: is an index of other settings ({'; '.join(changed)});"
                " name another --index, or remove it"
            )
        try:
            index = voyager.Index.load(str(path))
            if complete.exists():
                return index, np.load(complete, allow_pickle=False)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"{path}: cannot be read ({first_line(error)}); remove it, or name another --index"
            ) from None
    complete.unlink(missing_ok=True)
    write_json(beside, own)
    index, starts = _built(voyager, index, path, options, corpus)
    if not starts[-1]:
        raise UserError(f"{path}: no document has a token whose vector counts")
    with whole_file(complete) as temporary, temporary.open("wb") as file:
        np.save(file, starts)
    return index, starts


def _built(
    voyager: Any, index: Any, path: Path, options: Searching, corpus: StoredCorpus
) -> tuple[Any, np.ndarray]:
    """Put the tokens of a corpus that an index does not have yet into it, in order.

    The number of a token is its place in the corpus, and the index is saved as a whole. So what it
    has are the first tokens.
    """
    lengths: list[int] = []
    first = tokens = 0
    begin = saved = time.monotonic()
    pause = SAVED

    def save() -> None:
        with whole_file(path) as temporary:
            index.save(str(temporary))

    with Progress(corpus.count, of="document") as progress:
        for block in corpus.blocks():
            flat = np.concatenate(block)
            if index is None and len(flat):
                index = voyager.Index(
                    voyager.Space.InnerProduct,
                    num_dimensions=flat.shape[1],
                    M=options.index_links,
                    ef_construction=options.index_depth,
                    # Growing copies the index; this is about what all documents will need.
                    max_elements=max(1, len(flat) * corpus.count // len(block)),
                )
            before, ends = len(lengths), np.cumsum([len(text) for text in block])
            have = index.num_elements if index is not None else 0
            for start in range(max(have - first, 0), len(flat), ADDED):
                some = flat[start : start + ADDED]
                index.add_items(some, ids=range(first + start, first + start + len(some)))
                tokens += len(some)
                documents = before + int(np.searchsorted(ends, start + len(some), "right"))
                now = time.monotonic()
                pace = tokens / max(now - begin, 1e-9)
                left = (first + start) / max(documents, 1) * (corpus.count - documents) / pace
                progress.update(
                    "build index", documents, f"{pace:,.0f} tokens/s, {left / 60:,.0f} min left"
                )
                if now - saved >= pause:
                    save()
                    saved = time.monotonic()
                    pause = max(SAVED, 10 * (saved - now))
            lengths += [len(text) for text in block]
            first += len(flat)
    if tokens:
        save()
    return index, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def library() -> Any:
    """The module voyager. Raises `UserError` if it is not installed."""
    try:
        return importlib.import_module("voyager")
    except ImportError:
        raise UserError(
            "--index of a late-interaction model needs the package voyager; install it with:"
            " pip install 'modernbert-jax[retrieval]'"
        ) from None

"""Approximate search by an index of FAISS in a file, which is written once and used again."""

import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError, first_line
from modernbert_jax.io import outputs
from modernbert_jax.io.files import whole_file, write_json
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.io.progress import Progress
from modernbert_jax.io.typed_json import differences
from modernbert_jax.scoring.similarity import unit

from ..data import Run
from ..encoding import TextEncoder
from .exact import run_of
from .stored import StoredCorpus

TRAINED_ON = 131_072
"""Documents from which an index learns its clusters, at most: the first ones."""

_METRICS = {
    "cosine": "METRIC_INNER_PRODUCT",
    "dot": "METRIC_INNER_PRODUCT",
    "euclidean": "METRIC_L2",
}


def search_index(
    path: Path,
    kind: str,
    facts: Mapping[str, Any],
    encoder: TextEncoder,
    corpus: StoredCorpus,
    queries: Mapping[str, str],
    k: int,
    *,
    exclude_self: bool = False,
) -> Run:
    """As `search.search_blocks`, by an index, which is built if its file does not exist.

    Args:
        path: file of the index; FILE.json beside it says what it depends on.
        kind: as `faiss.index_factory` reads it: Flat is exact, HNSW32, "IVF4096,Flat".
        facts: everything that the vectors of the corpus depend on.
        corpus: whose vectors are indexed.

    Raises:
        UserError: as `library`; FAISS refuses `kind`, or the index is one of other settings.
    """
    faiss = library(encoder.similarity)
    own = {**facts, "index": kind, "similarity": encoder.similarity}
    beside = _beside(path)
    if path.exists():
        if changed := differences(read_json(beside), own):
            raise UserError(
                f"{path}: is an index of other settings ({'; '.join(changed)});"
                " name another --index, or remove it"
            )
        index = _call(path, lambda: faiss.read_index(str(path)))
    else:
        index = _built(faiss, kind, encoder.similarity, corpus)
        with whole_file(path) as temporary:
            faiss.write_index(index, str(temporary))
            write_json(beside, own)
    vectors = encoder.encode(queries.values(), "query")
    scores, numbers = index.search(_prepared(vectors, encoder.similarity), k + exclude_self)
    if encoder.similarity == "euclidean":
        scores = -np.sqrt(np.maximum(scores, 0))
    return run_of([*queries], scores, numbers.astype(np.int64), corpus.ids, k, exclude_self)


def check(path: Path, inputs: Iterable[str]) -> None:
    """Raise `UserError`, before the work, if an index can be neither written nor read there."""
    if path.exists() and not _beside(path).exists():
        raise UserError(
            f"{path}: has no {_beside(path).name}, which says what it holds; name another --index"
        )
    outputs.check_file(path, inputs, replaces="")


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def library(similarity: str) -> Any:
    """The module faiss. Raises `UserError` if it is not installed or lacks a similarity."""
    if similarity not in _METRICS:
        raise UserError(f"FAISS has no {similarity} similarity; leave out --index")
    try:
        return importlib.import_module("faiss")
    except ImportError:
        raise UserError(
            "--index needs the package faiss; install it with:"
            " pip install 'modernbert-jax[retrieval]'"
        ) from None


def _built(faiss: Any, kind: str, similarity: str, corpus: StoredCorpus) -> Any:
    index, first = None, []
    with Progress(corpus.count, of="document") as progress:
        for block in corpus.blocks():
            block = _prepared(block, similarity)
            if index is None:
                width, metric = block.shape[1], getattr(faiss, _METRICS[similarity])
                index = _call(f"--index-type {kind!r}", faiss.index_factory, width, kind, metric)
            if not index.is_trained:
                first.append(block)
                waiting = sum(map(len, first))
                if waiting < min(TRAINED_ON, corpus.count):
                    continue
                block, first = np.concatenate(first), []
                _call(f"--index-type {kind!r}", index.train, block)
            index.add(block)
            progress.update("build index", index.ntotal)
    return index


def _prepared(vectors: np.ndarray, similarity: str) -> np.ndarray:
    """Contiguous vectors, of length 1 for cosine."""
    vectors = unit(vectors) if similarity == "cosine" else vectors
    return np.ascontiguousarray(vectors, np.float32)


def _call(name: object, function: Any, *arguments: Any) -> Any:
    """A result of FAISS. Raises `UserError` with the last line of its error."""
    try:
        return function(*arguments)
    except RuntimeError as error:
        raise UserError(f"{name}: FAISS refuses it ({first_line(error)[-200:]})") from None

"""Read the arrays of a `jax` directory with Orbax, a chunk at a time and one chunk ahead."""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError, first_line

from . import lazy, names
from .name_rows import ParameterPath, Row

CHUNK_BYTES = 2**28
"""Size of arrays that are read together; a larger array is read alone."""

Chunk = dict[ParameterPath, np.ndarray]


def read(directory: Path, rows: Mapping[str, Row], check: Callable[[], None]) -> names.Params:
    """Lazy parameters from an Orbax folder; names and shapes are compared now.

    Args:
        directory: that Orbax has written.
        rows: the table of names, in whose order arrays will be used.
        check: raises `UserError` if files are damaged. It runs in parallel with the reading, and
            the last chunk is returned only after it has passed.

    Raises:
        UserError: the folder is unreadable, or the parameters do not fit the rows.
    """
    from orbax.checkpoint import v1 as ocp

    directory = directory.absolute()  # Orbax requires it
    with _readable(directory):
        described: names.Params = ocp.metadata(directory).metadata
        names.check_params(described, rows, directory)
    leaves = names.flatten(described)
    order = [*dict.fromkeys(row.path for row in rows.values())]
    reader = _ChunkReader(directory, leaves, order, check)
    params: names.Params = {}
    for path, leaf in leaves.items():
        names.put(params, path, lazy.Lazy(leaf.shape, leaf.dtype, functools.partial(reader, path)))
    return params


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[None]:
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # of many types: intact files that another program wrote
        reason = first_line(error)
        raise UserError(f"{directory}: not readable as parameters ({reason})") from error


class _ChunkReader:
    """A reader of arrays in chunks that keeps the last one and reads the next one ahead.

    Every call of Orbax takes a while, and a stack is requested layer by layer.
    """

    def __init__(
        self,
        directory: Path,
        leaves: Mapping[ParameterPath, Any],
        order: list[ParameterPath],
        check: Callable[[], None],
    ):
        self._directory, self._leaves, self._check = directory, leaves, check
        self._chunks: list[list[ParameterPath]] = []
        room = 0
        for path in order:
            size = math.prod(leaves[path].shape) * np.dtype(leaves[path].dtype).itemsize
            if size > room:
                self._chunks.append([])
                room = CHUNK_BYTES
            self._chunks[-1].append(path)
            room -= size
        self._held: Chunk = {}
        self._unread = set(range(len(self._chunks)))
        self._checking: Future[None] | None = None
        self._threads = ThreadPoolExecutor(2)
        self._ahead: dict[int, Future[Chunk]] = {}

    def __call__(self, path: ParameterPath) -> np.ndarray:
        """The array of a parameter."""
        if path not in self._held:
            self._held = {}  # frees the memory before the next chunk is read
            self._held = self._take(next(i for i, c in enumerate(self._chunks) if path in c))
        return self._held[path]

    def _take(self, i: int) -> Chunk:
        if self._checking is None:
            self._checking = self._threads.submit(self._check)
        try:
            chunk = (self._ahead.get(i) or self._start(i)).result()
        except UserError:
            self._checking.result()  # names the damaged files, if there are any
            raise
        self._unread.discard(i)
        if not self._unread:
            self._checking.result()
        self._ahead = {i + 1: self._start(i + 1)} if i + 1 in self._unread else {}
        return {path: lazy.announced("/".join(path), x) for path, x in chunk.items()}

    def _start(self, i: int) -> "Future[Chunk]":
        return self._threads.submit(self._read, self._chunks[i])

    def _read(self, chunk: list[ParameterPath]) -> Chunk:
        from orbax.checkpoint import v1 as ocp

        request: names.Params = {}
        for path, leaf in self._leaves.items():
            names.put(request, path, leaf if path in chunk else ocp.PLACEHOLDER)
        with _readable(self._directory):
            params = ocp.load(self._directory, request)
            return {path: names.leaf(params, path) for path in chunk}

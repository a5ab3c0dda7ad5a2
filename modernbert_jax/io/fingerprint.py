"""What an input is, whatever its name and wherever it is: digests of files, folders and arrays.

A run records the fingerprints of its inputs and compares them when it is resumed. A file or array
of up to `WHOLE` bytes is hashed whole. Of a larger one, its size and `BLOCKS` blocks of `BLOCK`
bytes at even distances are hashed, the first and the last included, so that it costs no more: a
change that keeps the size and hits no block is not noticed.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
import numpy as np

from .paths import files_below, matches
from .store import filesystem_errors, is_remote

WHOLE = 2**28
"""Bytes up to which content is hashed whole."""

BLOCK = 2**20
BLOCKS = 256


def of_paths(written: Sequence[str | Path]) -> str:
    """Fingerprint of files, in their order, without their names.

    Args:
        written: paths, folders, patterns or URLs, as `paths.matches` reads them.

    Raises:
        UserError: a path that matches nothing, or a file that cannot be read.
    """
    files: list[str] = []
    for pattern in written:
        for path, is_folder in matches(pattern):
            files += files_below(path) if is_folder else [path]
    with ThreadPoolExecutor(4) as pool:
        return _joined(list(pool.map(of_file, files)))


def of_file(path: str | Path) -> str:
    """Fingerprint of a local file, or of one at a URL."""
    with filesystem_errors(path, "read"):
        if is_remote(path):
            with fsspec.open(str(path), "rb") as remote:
                return _of_stream(remote)
        with open(path, "rb") as local:
            return _of_stream(local)


def of_json(value: Any) -> str:
    """Fingerprint of a JSON value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def of_contents(contents: Mapping[str, bytes]) -> str:
    """Fingerprint of small files by name."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    return of_json(digests)


def of_arrays(arrays: Mapping[str, Any]) -> str:
    """Fingerprint of arrays by name, with their dtypes and shapes.

    Args:
        arrays: numpy arrays, hashed in parallel, or what `np.asarray` reads, one at a time.
    """
    in_memory = all(isinstance(array, np.ndarray) for array in arrays.values())
    with ThreadPoolExecutor(8 if in_memory else 1) as pool:
        digests = pool.map(_of_array, arrays.values())
        return of_json(dict(zip(arrays, digests, strict=True)))


def _of_array(array: Any) -> str:
    array = np.asarray(array)
    content = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
    digest = hashlib.sha256(f"{array.dtype.name} {array.shape}".encode())
    for start, stop in _parts(len(content)):
        digest.update(content[start:stop])
    return digest.hexdigest()


def _of_stream(file: BinaryIO | Any) -> str:
    size = file.seek(0, 2)
    digest = hashlib.sha256()
    for start, stop in _parts(size):
        file.seek(start)
        for at in range(start, stop, 16 * BLOCK):
            digest.update(file.read(min(16 * BLOCK, stop - at)))
    return f"{size}-{digest.hexdigest()}"


def _parts(size: int) -> list[tuple[int, int]]:
    """Ranges of bytes that are hashed."""
    if size <= WHOLE:
        return [(0, size)]
    starts = (i * (size - BLOCK) // (BLOCKS - 1) for i in range(BLOCKS))
    return [(start, start + BLOCK) for start in starts]


def _joined(fingerprints: list[str]) -> str:
    return fingerprints[0] if len(fingerprints) == 1 else of_json(fingerprints)

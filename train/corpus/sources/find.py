"""Patterns, folders and URLs resolved to source files, and local copies of remote ones."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec

from modernbert_jax.errors import UserError
from modernbert_jax.io.paths import Format, file_type, files_below, matches
from modernbert_jax.io.store import filesystem_errors, is_remote

from . import mds
from .document import Source

_READ: tuple[Format, ...] = ("text", "jsonl", "parquet")
"""Formats of files that a folder stands for."""


def find(patterns: Sequence[str | Path]) -> list[Source]:
    """List all files that the patterns match, sorted, each once.

    A folder means the shards of its MDS indexes and all readable files below it.

    Raises:
        UserError: a pattern that matches nothing, or a damaged MDS index.
    """
    sources: dict[str, Source] = {}
    for pattern in patterns:
        matched = [s for path, folder in matches(pattern) for s in _files(path, folder)]
        if not matched:
            raise UserError(f"{pattern}: no such file")
        sources |= {source.path: source for source in matched}
    return [sources[path] for path in sorted(sources)]


@contextlib.contextmanager
def fetched(source: Source) -> Iterator[Path]:
    """Provide a source as a local file: itself, or a temporary copy of a remote one.

    Raises:
        UserError: the file cannot be copied.
    """
    if not is_remote(source.path):
        yield Path(source.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source"
        with filesystem_errors(source.path, "read"):
            fs, remote = fsspec.url_to_fs(source.path)
            fs.get_file(remote, str(path))
        yield path


def _files(path: str, folder: bool) -> list[Source]:
    """List the sources that a path means."""
    if not folder:
        if os.path.basename(path) == mds.INDEX and _is_mds(path):
            return _shards(os.path.dirname(path))
        return [_file(path)]
    below = files_below(path)
    indexes = [p for p in below if os.path.basename(p) == mds.INDEX and _is_mds(p)]
    inside = tuple(os.path.dirname(p) + "/" for p in indexes)
    plain = [p for p in below if not p.startswith(inside)] if inside else below
    files = [source for source in map(_file, plain) if source.format in _READ]
    return [shard for index in indexes for shard in _shards(os.path.dirname(index))] + files


def _file(path: str) -> Source:
    format, compression = file_type(path)
    if format == "unknown":
        format = "text"
    elif format not in _READ or (format == "text" and compression):
        format = "unread"
    return Source(path=path, bytes=_size(path) or 0, format=format)


def _shards(folder: str) -> list[Source]:
    """List the shards of an MDS folder, preferring decompressed files where they exist."""
    index = f"{folder}/{mds.INDEX}"
    sources = []
    for shard in mds.shards(_content(index), index):
        names = [mds.file_name(shard, zipped) for zipped in (False, True)]
        sizes = {f"{folder}/{name}": _size(f"{folder}/{name}") for name in names if name}
        path = next((p for p, size in sizes.items() if size is not None), list(sizes)[-1])
        size = sizes[path] or 0
        sources.append(Source(path=path, bytes=size, format="mds", shard=json.dumps(shard)))
    return sources


def _is_mds(index: str) -> bool:
    """Whether an `index.json` describes an MDS folder; other programs use that name too."""
    try:
        content = json.loads(_content(index))
    except ValueError:
        return os.path.dirname(index) != "" and b'"shards"' in _content(index)
    return isinstance(content, dict) and "shards" in content


def _content(path: str) -> bytes:
    with filesystem_errors(path, "read"), fsspec.open(path, "rb") as file:
        return file.read()


def _size(path: str) -> int | None:
    """Bytes of a file; None if it does not exist."""
    with filesystem_errors(path, "read"):
        if not is_remote(path):
            return os.path.getsize(path) if os.path.exists(path) else None
        fs, root = fsspec.url_to_fs(path)
        return fs.size(root) if fs.exists(root) else None

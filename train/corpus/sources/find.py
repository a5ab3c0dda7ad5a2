"""Which files there are: patterns, folders and URLs to files that can be read one by one."""

import contextlib
import dataclasses
import glob
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import fsspec

from modernbert_jax.errors import UserError
from modernbert_jax.io.store import filesystem_errors, is_remote

from . import mds

Format = Literal["text", "jsonl", "parquet", "mds", "unread"]

_ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
    ".parquet": "parquet",
}
_OTHER = (".gz", ".zst", ".bz2", ".xz", ".zip", ".mds", ".arrow")
"""Endings of containers that are not read by themselves; they must not pass for text."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A file of documents."""

    path: str
    """As it was given or found: a local path or a URL."""
    bytes: int
    format: Format
    shard: str = ""
    """What the index says about a shard of an MDS folder, as JSON."""

    @property
    def compressed(self) -> bool:
        """Whether its text is a few times longer than the file."""
        return self.path.endswith((".gz", ".zst", ".bz2", ".parquet"))


def find(patterns: Sequence[str | Path]) -> list[Source]:
    """All files that the patterns match, sorted, each once.

    A folder stands for the shards of its MDS index, or for what can be read in it and below.

    Raises:
        UserError: a pattern that matches nothing, or a damaged MDS index.
    """
    found: dict[str, Source] = {}
    for pattern in patterns:
        groups = [_files(path, folder) for path, folder in matches(str(pattern))]
        if not any(groups):
            raise UserError(f"{pattern}: no such file")
        found |= {source.path: source for sources in groups for source in sources}
    return [found[path] for path in sorted(found)]


@contextlib.contextmanager
def fetched(source: Source) -> Iterator[Path]:
    """The source's file on this machine: itself, or a copy that goes away again.

    Raises:
        UserError: a file that cannot be copied.
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


def matches(pattern: str) -> Iterator[tuple[str, bool]]:
    """Paths that a pattern matches, here or behind a URL, and whether each is a folder."""
    if not is_remote(pattern):
        for path in glob.glob(pattern, recursive=True):
            yield path, os.path.isdir(path)
        return
    with filesystem_errors(pattern, "read"):
        fs, root = fsspec.url_to_fs(pattern)
        for path in fs.glob(root) if glob.has_magic(root) else [root]:
            if fs.exists(path):
                yield fs.unstrip_protocol(path), fs.isdir(path)


def _files(path: str, folder: bool) -> list[Source]:
    """The sources that a path stands for."""
    if not folder:
        if os.path.basename(path) == mds.INDEX and _is_mds(path):
            return _shards(os.path.dirname(path))
        return [_file(path)]
    below = _below(path)
    indexes = [p for p in below if os.path.basename(p) == mds.INDEX and _is_mds(p)]
    inside = tuple(os.path.dirname(p) + "/" for p in indexes)
    plain = [p for p in below if not p.startswith(inside)] if inside else below
    known = [_file(p) for p in plain if p.endswith((*_ENDINGS, ".txt"))]
    return [shard for index in indexes for shard in _shards(os.path.dirname(index))] + known


def _file(path: str) -> Source:
    known = next((kind for ending, kind in _ENDINGS.items() if path.endswith(ending)), "text")
    if known == "text" and path.endswith(_OTHER):
        known = "unread"
    return Source(path=path, bytes=_size(path), format=known)


def _shards(folder: str) -> list[Source]:
    """The shards of an MDS folder: decompressed where such a file is there, else compressed."""
    index = f"{folder}/{mds.INDEX}"
    found = []
    for shard in mds.shards(_content(index), index):
        path = f"{folder}/{mds.file_name(shard, False)}"
        if shard.get("zip_data") and not _exists(path):
            path = f"{folder}/{mds.file_name(shard, True)}"
        size = _size(path) if _exists(path) else 0
        found.append(Source(path=path, bytes=size, format="mds", shard=json.dumps(shard)))
    return found


def _is_mds(index: str) -> bool:
    """Whether an index.json is that of an MDS folder; the name alone says little."""
    try:
        content = json.loads(_content(index))
    except ValueError:
        return os.path.dirname(index) != "" and b'"shards"' in _content(index)
    return isinstance(content, dict) and "shards" in content


def _below(folder: str) -> list[str]:
    if not is_remote(folder):
        return sorted(str(p) for p in Path(folder).rglob("*") if p.is_file())
    with filesystem_errors(folder, "read"):
        fs, root = fsspec.url_to_fs(folder)
        return sorted(fs.unstrip_protocol(p) for p in fs.find(root))


def _content(path: str) -> bytes:
    with filesystem_errors(path, "read"), fsspec.open(path, "rb") as file:
        return file.read()


def _size(path: str) -> int:
    with filesystem_errors(path, "read"):
        if not is_remote(path):
            return os.path.getsize(path)
        fs, root = fsspec.url_to_fs(path)
        return fs.size(root)


def _exists(path: str) -> bool:
    if not is_remote(path):
        return os.path.exists(path)
    with filesystem_errors(path, "read"):
        fs, root = fsspec.url_to_fs(path)
        return fs.exists(root)

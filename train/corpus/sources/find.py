"""Patterns, folders and URLs resolved to source files, and local copies of remote ones."""

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import fsspec

from modernbert_jax.errors import UserError
from modernbert_jax.io import standard_input
from modernbert_jax.io.json_reader import parse_json
from modernbert_jax.io.paths import Format, file_type, files_below, matches
from modernbert_jax.io.store import filesystem_errors, is_remote

from . import mds
from .document import Source

READ: tuple[Format, ...] = ("text", "jsonl", "json", "csv", "tsv", "parquet")
"""Formats of files that a folder stands for."""

_DESCRIPTIONS = (
    *("index.json", "manifest.json", "metadata.json", "dataset_info.json", "dataset_infos.json"),
    *("dataset_dict.json", "state.json"),
)
"""Files that describe those beside them; a folder does not stand for these."""


def find(patterns: Sequence[str | Path], formats: Sequence[Format] = READ) -> list[Source]:
    """List all files that the patterns match, sorted, each once.

    A folder means the shards of its MDS indexes and all readable files below it.

    Args:
        patterns: files, patterns, folders or URLs.
        formats: those that are readable.

    Raises:
        UserError: a pattern that matches nothing, a folder without readable files, or an MDS folder
            without its index.
    """
    sources: dict[str, Source] = {}
    for pattern in patterns:
        places = matches(pattern)
        matched = [
            source
            for path, is_folder in places
            for source in (_inside if is_folder else _named)(path, formats)
        ]
        if not matched:
            raise _nothing_in(places[0].path)
        sources |= {source.path: source for source in matched}
    return [sources[path] for path in sorted(sources)]


@contextlib.contextmanager
def fetched(source: Source) -> Iterator[Path]:
    """Provide a source as a local file: itself, or a copy of standard input or a remote one.

    Raises:
        UserError: the file cannot be copied.
    """
    if not is_remote(source.path):
        yield Path(source.stored or source.path)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "source"
        with filesystem_errors(source.path, "read"):
            fs, remote = fsspec.url_to_fs(source.path)
            fs.get_file(remote, str(path))
        yield path


def from_standard_input() -> Source:
    """Standard input, stored as a file. Raises `UserError`."""
    path = standard_input.spooled()
    stored, size = str(path), path.stat().st_size
    return Source(path=standard_input.NAME, bytes=size, format="jsonl", stored=stored)


def _named(path: str, formats: Sequence[Format]) -> list[Source]:
    """List the sources that the path of a file means."""
    if path == standard_input.NAME:
        return [from_standard_input()]
    folder, _, name = path.rpartition("/")
    if name == mds.INDEX and _is_mds(path, files_below(folder or ".")):
        return _shards(folder or ".")
    return [_file(path, formats)]


def _inside(folder: str, formats: Sequence[Format]) -> list[Source]:
    """List the sources in a folder. Raises `UserError` for MDS shards without an index."""
    below = files_below(folder)
    indexes = [p for p in below if os.path.basename(p) == mds.INDEX and _is_mds(p, below)]
    indexed = tuple(os.path.dirname(p) + "/" for p in indexes)
    plain = [p for p in below if not p.startswith(indexed)]
    for path in filter(mds.is_shard, plain):
        raise UserError(f"{path}: is an MDS shard that no {mds.INDEX} in its folder lists")
    files = [_file(p, formats) for p in plain if os.path.basename(p) not in _DESCRIPTIONS]
    sources = [shard for index in indexes for shard in _shards(os.path.dirname(index))]
    return sources + [
        s for s in files if s.format in formats and file_type(s.path).format != "unknown"
    ]


def _nothing_in(folder: str) -> UserError:
    """The error for a folder without sources, which says what it holds instead."""
    others = ", ".join(
        sorted({Path(p).suffix or "without ending" for p in files_below(folder)})[:5]
    )
    return UserError(
        f"{folder}: has no files that a folder stands for"
        f" ({f'only {others}' if others else 'it is empty'}); name files, or a pattern"
    )


def _file(path: str, formats: Sequence[Format]) -> Source:
    format = file_type(path).format
    if format == "unknown":
        format = "text"
    elif format not in formats:
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


def _is_mds(index: str, below: Sequence[str]) -> bool:
    """Whether an `index.json` describes an MDS folder; other programs use that name too.

    Args:
        index: its path.
        below: all files below its folder, and perhaps others.
    """
    content = _content(index)
    try:
        value = parse_json(content, surrogates=True)
    except UserError:
        folder = index.removesuffix(mds.INDEX)
        beside = any(mds.is_shard(p) and p.startswith(folder) for p in below)
        return beside or b'"shards"' in content
    return isinstance(value, dict) and "shards" in value


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

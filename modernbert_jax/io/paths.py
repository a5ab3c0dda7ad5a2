"""Paths as users write them: names before patterns, `~`, hidden files, and the table of endings."""

import glob
import os
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import fsspec

from modernbert_jax.errors import UserError

from . import patterns, standard_input
from .store import filesystem_errors, is_remote

# fmt: off
Format = Literal[
    "text", "jsonl", "json", "csv", "tsv", "conll", "parquet", "arrow", "mds", "unread", "unknown",
]
# fmt: on
"""Format of a file's content. "unread" is a container that no module reads; "unknown" is an ending
that is not in the table, which source code and other plain text may have."""

ENDINGS: dict[str, Format] = {
    ".txt": "text",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".conll": "conll",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".mds": "mds",
    **dict.fromkeys((".zip", ".7z", ".rar", ".tar", ".tgz", ".lz4", ".br", ".snappy"), "unread"),
    **dict.fromkeys((".xlsx", ".xls", ".ods", ".docx", ".doc", ".pdf", ".epub"), "unread"),
    **dict.fromkeys((".feather", ".orc", ".avro", ".db", ".sqlite", ".h5", ".hdf5"), "unread"),
    **dict.fromkeys((".pkl", ".pickle", ".npy", ".npz", ".pt", ".bin", ".safetensors"), "unread"),
    **dict.fromkeys((".tfrecord", ".arrayrecord", ".idx"), "unread"),
}
"""The format of each ending, in lower case. Endings of files count in any case."""

COMPRESSIONS = (".gz", ".zst", ".bz2", ".xz")
"""Endings that may follow those of text formats."""

TEXT_FORMATS: tuple[Format, ...] = ("text", "jsonl", "json", "csv", "tsv", "conll")
"""Formats made of lines of text, which may be compressed."""


class FileType(NamedTuple):
    """What the name of a file says about its content."""

    format: Format
    compression: str
    """One of `COMPRESSIONS`, or "" for none."""


class Match(NamedTuple):
    """A path that exists."""

    path: str
    """Local path or URL."""
    is_folder: bool


def file_type(path: str | Path) -> FileType:
    """Look up the endings of a file's name, in any case. Standard input is JSON lines."""
    if str(path) == standard_input.NAME:
        return FileType("jsonl", "")
    name = PurePosixPath(str(path).lower())
    compression = name.suffix if name.suffix in COMPRESSIONS else ""
    format = ENDINGS.get(PurePosixPath(name.stem).suffix if compression else name.suffix, "unknown")
    if compression and format not in TEXT_FORMATS:
        format = "unread"
    return FileType(format, compression)


def expanded(path: str | Path) -> str:
    """A path with `~` replaced by the home folder; URLs are returned as they are."""
    return str(path) if is_remote(path) else os.path.expanduser(path)


def matches(written: str | Path) -> list[Match]:
    """List what a user's path means, sorted: the file or folder of that name, or else a pattern.

    A leading part of the path that exists is a name too, so `runs [2]/*.jsonl` matches files in the
    folder `runs [2]`. Wildcards do not match hidden files. `-` is standard input.

    Args:
        written: Local path or URL, with `~` and the wildcards `*`, `?`, `[...]` and `**`.

    Raises:
        UserError: nothing has that name or matches the pattern, it is a pipe or device, or a file
            system's error.
    """
    path = expanded(written)
    if path == standard_input.NAME:
        return [Match(path, is_folder=False)]
    with filesystem_errors(path, "read"):
        if is_remote(path):
            result = _remote(path)
        else:
            result = [Match(p, os.path.isdir(p)) for p in patterns.local_matches(path)]
    if not result:
        raise UserError(f"{written}: no such file")
    for match in result:
        if not is_remote(match.path) and not match.is_folder and not os.path.isfile(match.path):
            raise UserError(
                f"{match.path}: is a pipe or device, which is read only once; pass - and redirect"
                " standard input, or name a file"
            )
    return sorted(result)


def files_below(folder: str) -> list[str]:
    """List all files below a local or remote folder, sorted, without hidden ones."""
    with filesystem_errors(folder, "read"):
        if not is_remote(folder):
            inside = (p for p in Path(folder).rglob("*") if p.is_file())
            return sorted(str(p) for p in inside if not _is_hidden(p.relative_to(folder).parts))
        fs, root = fsspec.url_to_fs(folder)
        files = (p for p in fs.find(root) if not _is_hidden(p.removeprefix(root).split("/")))
        return sorted(fs.unstrip_protocol(p) for p in files)


def _remote(url: str) -> list[Match]:
    fs, path = fsspec.url_to_fs(url)
    if fs.exists(path) or not glob.has_magic(path):
        existing = [path] if fs.exists(path) else []
    else:
        pattern, rest = patterns.escaped(path, fs.exists)
        names_hidden = _is_hidden(rest.split("/"))
        depth = len(path) - len(rest)
        existing = [
            p for p in fs.glob(pattern) if names_hidden or not _is_hidden(p[depth:].split("/"))
        ]
    return [Match(fs.unstrip_protocol(p), fs.isdir(p)) for p in existing]


def _is_hidden(parts: Iterable[str]) -> bool:
    return any(part.startswith(".") and part not in (".", "..") for part in parts)

"""Checksums of a folder's files, kept in it: whether what was written is still what is there.

Storage does not tell when it returns other bytes than it was given, and neither Orbax nor
TensorStore notices that in the data of an array.
"""

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import read_json, write_json

FILE = "checksums.json"
"""In the folder. It maps the path of every other file to its size in bytes and its SHA-256."""


def write(folder: Path) -> None:
    """Notes size and SHA-256 of every file below a folder."""
    files = _files(folder)
    with ThreadPoolExecutor() as pool:
        write_json(
            folder / FILE,
            {
                name: {"bytes": path.stat().st_size, "sha256": found}
                for (name, path), found in zip(
                    files.items(), pool.map(sha256, files.values()), strict=True
                )
            },
        )


def damage(folder: Path, largest: float = math.inf) -> str | None:
    """What is wrong with a folder, in a few words; None if nothing is.

    A folder without checksums is taken as it is: they are written a moment after the rest. Of
    files with more than `largest` bytes only the size is compared.
    """
    if not (folder / FILE).exists():
        return None
    try:
        noted = {name: (f["bytes"], f["sha256"]) for name, f in read_json(folder / FILE).items()}
    except (UserError, TypeError, KeyError):
        return f"{FILE} cannot be read"
    files = _files(folder)
    for name, (size, _) in noted.items():
        if name not in files:
            return f"{name} is missing"
        if files[name].stat().st_size != size:
            return f"{name} has {files[name].stat().st_size:,} bytes instead of {size:,}"
    wanted = {name: digest for name, (size, digest) in noted.items() if size <= largest}
    with ThreadPoolExecutor() as pool:
        found = pool.map(sha256, (files[name] for name in wanted))
        for name, hashed in zip(wanted, found, strict=True):
            if hashed != wanted[name]:
                return f"{name} does not hold what was written"
    return None


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder by their path in it, but for the checksums."""
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in found}
    return {name: path for name, path in named.items() if name != FILE}


def sha256(path: str | Path) -> str:
    """Of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

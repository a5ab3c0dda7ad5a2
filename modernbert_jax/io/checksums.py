"""Checksums of a folder's files, kept in the folder: they detect files that have changed.

Storage does not report that it returns other bytes than were written, and neither Orbax nor
TensorStore notices it in the data of an array.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import write_json
from modernbert_jax.io.json_reader import read_json

FILE = "checksums.json"
"""Name of the file, which maps the path of every other file to its size in bytes and SHA-256."""


def write(folder: Path) -> None:
    """Record size and SHA-256 of every file below a folder."""
    files = _files(folder)
    with ThreadPoolExecutor() as pool:
        digests = [*pool.map(sha256, files.values())]
    write_json(
        folder / FILE,
        {
            name: {"bytes": path.stat().st_size, "sha256": digest}
            for (name, path), digest in zip(files.items(), digests, strict=True)
        },
    )


def damage(folder: Path, largest: float = math.inf) -> str | None:
    """Describe in a few words how the files differ from what was written; None if they do not.

    A folder without checksums counts as undamaged: they are written a moment after the rest.

    Args:
        folder: in which `write` has recorded checksums.
        largest: bytes of the largest file to hash; of larger ones only the size is compared.
    """
    if not (folder / FILE).exists():
        return None
    try:
        recorded = read_json(folder / FILE)
        expected = {name: (int(f["bytes"]), f["sha256"]) for name, f in recorded.items()}
    except (UserError, TypeError, KeyError, ValueError, OverflowError):
        return f"{FILE} cannot be read"
    return "; ".join(differences(folder, expected, sha256, largest)) or None


def differences(
    folder: Path,
    expected: Mapping[str, tuple[int, str]],
    digest: Callable[[Path], str],
    largest: float = math.inf,
) -> list[str]:
    """Describe every file that is missing or has another size or digest than expected.

    Args:
        folder: that holds the files.
        expected: size in bytes and digest of every file, by its path in the folder.
        digest: computes the digest of a file.
        largest: bytes of the largest file to hash; of larger ones only the size is compared.
    """
    files, problems, unhashed = _files(folder), [], []
    for name, (size, _) in expected.items():
        if name not in files:
            problems.append(f"{name} is missing")
        elif (actual := files[name].stat().st_size) != size:
            problems.append(f"{name} has {actual:,} bytes instead of {size:,}")
        elif size <= largest:
            unhashed.append(name)
    with ThreadPoolExecutor() as pool:
        digests = pool.map(digest, (files[name] for name in unhashed))
        for name, actual_digest in zip(unhashed, digests, strict=True):
            if actual_digest != expected[name][1]:
                problems.append(f"{name} does not hold what was written")
    return problems


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's content, in hex; reads it block by block."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder by their path in it, without the checksums."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    by_name = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: path for name, path in by_name.items() if name != FILE}

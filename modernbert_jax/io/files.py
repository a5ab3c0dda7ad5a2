"""Write files and directories whole or not at all."""

import contextlib
import errno
import glob
import json
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError


@contextlib.contextmanager
def whole_directory(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary sibling to fill, which becomes `path` if the block succeeds, else is removed.

    Raises:
        UserError: `path` is a file or a directory with content, or cannot be written.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"{path}: exists; choose another place or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(path)
        temporary.mkdir()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield temporary
        _publish(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, *, new: bool = False) -> Iterator[Path]:
    """The path of a temporary sibling to write, which becomes `path` if the block succeeds.

    Args:
        path: of the file; an existing one is replaced.
        new: refuse to replace an existing file, and create the folders above it.

    Raises:
        UserError: `new` is true and `path` exists or cannot be written.
    """
    path = Path(path).absolute()
    if new and path.exists():
        raise UserError(f"{path}: exists; choose another place or remove it")
    temporary = _temporary(path)
    try:
        if new:
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary.touch()
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from error
    try:
        yield temporary
        _publish(temporary, path) if new else temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file, replacing an existing one atomically."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write indented JSON, replacing an existing file atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _publish(temporary: Path, path: Path) -> None:
    """Give a finished file or directory its name; another one with content is never replaced.

    Raises:
        UserError: another process was faster.
    """
    try:
        if temporary.is_dir():
            temporary.rename(path)  # an empty directory may be there
            return
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            temporary.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise UserError(f"{path}: exists; another process has written it meanwhile") from None
        raise


def _temporary(path: Path) -> Path:
    """A sibling's path that names host and process; removes those of processes that are gone."""
    host = socket.gethostname()
    prefix = f".{path.name}.{host}-"
    for leftover in path.parent.glob(f"{glob.escape(prefix)}*.tmp"):
        owner = leftover.name.removeprefix(prefix).removesuffix(".tmp")
        # One with this process's number is from an earlier process: in containers all have few.
        if owner.isdecimal() and (int(owner) == os.getpid() or not _alive(int(owner))):
            _remove(leftover)
    return path.with_name(f"{prefix}{os.getpid()}.tmp")


def _remove(path: Path) -> None:
    """Remove a file, a folder with its content, or a link; not what the link points to."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True

"""Write files and directories whole or not at all."""

import contextlib
import errno
import glob
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io import outputs


@contextlib.contextmanager
def whole_directory(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary sibling to fill, which becomes `path` if the block succeeds, else is removed.

    Raises:
        UserError: `path` is a file or a directory with content, or cannot be written.
    """
    place = outputs.folder_place(path)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(place)
        temporary.mkdir()
    except OSError as error:
        raise outputs.unwritable(path, error) from error
    try:
        with _full_disk(path):
            yield temporary
            _publish(temporary, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, *, new: bool = False) -> Iterator[Path]:
    """The path of a temporary sibling to write, which becomes `path` if the block succeeds.

    Args:
        path: of the file; an existing one is replaced, and folders above it are created.
        new: refuse to replace an existing file.

    Raises:
        UserError: `path` cannot be written, is no regular file, or exists and `new` is true.
    """
    place = outputs.check_file(path) if new else outputs.file_place(path, replaces="")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary(place)
        temporary.touch()
    except OSError as error:
        raise outputs.unwritable(path, error) from error
    try:
        with _full_disk(path) if new else contextlib.nullcontext():
            yield temporary
            _publish(temporary, place) if new else temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def output(
    path: str | os.PathLike,
    inputs: Iterable[str | os.PathLike] = (),
    *,
    replaces: str | None = None,
) -> Iterator[Callable[[bytes], None]]:
    """The function that writes a command's output, which is checked before the block's work.

    A file appears at the end of the block if it succeeds. A stream (`-`, a fifo, a device) is
    written at once.

    Args:
        path: of the file or stream.
        inputs: files, folders and globs that the command reads; never replaced.
        replaces: ending of an existing file that may be replaced; None refuses existing files.

    Raises:
        UserError: `path` cannot be written, is an input, or exists and may not be replaced.
    """
    if outputs.is_stream(path):
        with outputs.stream(path) as write:
            yield write
        return
    place = outputs.check_file(path, inputs, replaces=replaces)
    parts: list[bytes] = []
    yield parts.append
    try:
        with whole_file(place, new=replaces is None) as temporary:
            temporary.write_bytes(b"".join(parts))
    except OSError as error:
        raise outputs.unwritable(path, error) from error


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file, replacing an existing one atomically."""
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write indented JSON, replacing an existing file atomically."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def _full_disk(path: str | os.PathLike) -> Iterator[None]:
    """Raise a `UserError` that names the output where the disk, or the quota, is full."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise outputs.unwritable(path, error) from error
        raise


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

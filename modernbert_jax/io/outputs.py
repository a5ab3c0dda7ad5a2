"""The one rule for what a command writes, checked before its work.

- A file that exists is refused, or replaced where the command's help says so. An input never is.
- Links are followed: what they point to is written, and they remain links.
- `-`, /dev/stdout, /dev/fd/N, fifos and character devices are streams: written in place, where a
  command writes lines.
- Folders, block devices, sockets, and places that cannot be written are refused.
"""

import contextlib
import errno
import os
import re
import select
import stat
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from modernbert_jax.errors import UserError

from . import patterns

T = TypeVar("T")

STDOUT = 1
"""Descriptor of standard output."""

_DESCRIPTOR = re.compile(r"/(?:dev|proc/self|proc/thread-self)/fd/(\d+)")
_NAMES = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_LINKS = 40
"""Links that are followed at most, as Linux does."""

_PROBE = bytes(4096)


def file_place(
    path: str | os.PathLike,
    inputs: Iterable[str | os.PathLike] = (),
    *,
    replaces: str | None = None,
) -> Path:
    """The place of a file to be made, with links followed.

    Args:
        path: of the file.
        inputs: files, folders and globs that the command reads; never replaced.
        replaces: ending of an existing file that may be replaced; "" is any, None allows none.

    Raises:
        UserError: it is an input or no regular file, or exists and may not be replaced.
    """
    if descriptor(path) is not None:
        raise UserError(f"{path}: is a stream; name a file")
    place, mode = _place(path)
    if mode is None:
        return place
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder; name a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is a device, fifo or socket; name a file")
    if any(_is_in(place, source) for source in inputs):
        raise UserError(f"{path}: is an input of this command; choose another place")
    if replaces is None or not place.name.lower().endswith(replaces):
        raise _exists(path)
    return place


def check_file(
    path: str | os.PathLike,
    inputs: Iterable[str | os.PathLike] = (),
    *,
    replaces: str | None = None,
) -> Path:
    """As `file_place`, for before the work: tries as well whether the file could be written."""
    place = file_place(path, inputs, replaces=replaces)
    _probe(path, place.parent)
    return place


def folder_place(path: str | os.PathLike) -> Path:
    """The place of a folder that a finished one is moved to, with links followed.

    Raises:
        UserError: it is a file or holds something, or it cannot be replaced.
    """
    place, mode = _place(path)
    if mode is None:
        return place
    if not stat.S_ISDIR(mode) or _of_system(path, lambda: any(place.iterdir())):
        raise _exists(path)
    if place.is_mount() or place == Path.cwd():
        kind = "a mount point" if place.is_mount() else "the current folder"
        raise UserError(f"{path}: is {kind}, which cannot be replaced; name a folder in it")
    return place


def check_new_folder(path: str | os.PathLike) -> Path:
    """As `folder_place`, for before the work: tries as well whether it could be written."""
    place = folder_place(path)
    _probe(path, place.parent)
    return place


def check_folder(path: str | os.PathLike) -> Path:
    """The place of a folder to write into, whatever it holds, with links followed.

    Raises:
        UserError: it is no folder, or cannot be written.
    """
    place, mode = _place(path)
    if mode is not None and not stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a file; name a folder")
    _probe(path, place)
    return place


def descriptor(path: str | os.PathLike) -> int | None:
    """Number of the open file that a path names, or a link to such a path; None for others."""
    name = os.fspath(path)
    for _ in range(_LINKS):
        if name in _NAMES:
            return _NAMES[name]
        if match := _DESCRIPTOR.fullmatch(os.path.abspath(name)):
            return int(match[1])
        if not os.path.islink(name):
            return None
        name = os.path.join(os.path.dirname(name), os.readlink(name))
    return None


def is_stream(path: str | os.PathLike) -> bool:
    """True for `-`, paths of open files, fifos and character devices."""
    if descriptor(path) is not None:
        return True
    _, mode = _place(path)
    return mode is not None and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))


@contextlib.contextmanager
def stream(path: str | os.PathLike) -> Iterator[Callable[[bytes], None]]:
    """The function that writes to a stream, which is opened and probed at once.

    Raises:
        UserError: the stream is closed, full or not open for writing, or nobody reads it.
    """
    number = descriptor(path)
    if number is not None:
        check_descriptor(number, str(path))
        if number == STDOUT and sys.stdout is not None:
            sys.stdout.flush()
        opened = os.dup(number)
    else:
        try:  # without a reader a fifo would block
            opened = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
        except OSError as error:
            reason = "nobody reads it" if stat.S_ISFIFO(os.stat(path).st_mode) else error.strerror
            raise UserError(f"{path}: cannot be written ({reason})") from None
        os.set_blocking(opened, True)
    with os.fdopen(opened, "wb", buffering=0) as file:
        check_descriptor(opened, str(path))

        def write(content: bytes) -> None:
            rest = memoryview(content)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
            except OSError as error:
                if number == STDOUT and isinstance(error, BrokenPipeError):
                    raise  # `| head` has seen enough, which is no error
                raise unwritable(path, error) from None

        yield write


def check_descriptor(number: int, name: str) -> None:
    """Raise `UserError` if an open file is closed, full, only for reading, or read by nobody.

    Args:
        number: of the open file.
        name: in the message.
    """
    try:
        os.write(number, b"")  # /dev/full refuses even nothing
        mode = os.fstat(number).st_mode
        if stat.S_ISREG(mode):
            disk = os.fstatvfs(number)
            if disk.f_blocks and not disk.f_bfree:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        if error.errno == errno.EBADF:
            raise UserError(f"{name}: is closed, or open for reading only") from None
        raise unwritable(name, error) from None
    if stat.S_ISFIFO(mode):
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            raise UserError(f"{name}: cannot be written (nobody reads it any more)")


def unwritable(path: str | os.PathLike, error: Exception) -> UserError:
    """The error for a path that the operating system refuses to write."""
    return UserError(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error})")


def _exists(path: str | os.PathLike) -> UserError:
    return UserError(f"{path}: exists; choose another place or remove it")


def _of_system(path: str | os.PathLike, call: Callable[[], T]) -> T:
    """The result of a call of the operating system. Raises `UserError` that names the path."""
    try:
        return call()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise unwritable(path, error) from None


def _place(path: str | os.PathLike) -> tuple[Path, int | None]:
    """Where a path leads, and the mode of what is there, if there is anything."""
    place = Path(_of_system(path, lambda: os.path.realpath(os.path.expanduser(path))))
    try:
        return place, place.stat().st_mode
    except FileNotFoundError:
        return place, None
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from None


def _is_in(place: Path, source: str | os.PathLike) -> bool:
    """Whether an existing file is an input, or in a folder that is one."""
    name = os.path.expanduser(source)
    for match in patterns.local_matches(name):
        if os.path.samefile(place, match):
            return True
        if os.path.isdir(match) and place.is_relative_to(os.path.realpath(match)):
            return True
    return False


def _probe(path: str | os.PathLike, directory: Path) -> None:
    """Write into a folder, or the nearest one above it that exists; leaves nothing there."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    try:
        with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
            file.write(_PROBE)
    except OSError as error:
        raise unwritable(path, error) from None

"""A lock on a place that only one process may write.

The lock is a file that names its holder, locked with `flock`. The operating system releases it when
the holder ends, however it ends; a lock file that is left behind locks nothing.

Between machines the lock works as far as the file system supports it. NFS (Linux, with its lock
service), Lustre (mounted with `flock`), GPFS, CephFS and BeeGFS do. A file system without locks is
reported, and the work continues. NFS mounted with `nolock`, and object stores that are mounted as
folders (gcsfuse, s3fs), lock among the processes of one machine only; nothing reports that.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from modernbert_jax.errors import UserError

PATIENCE = 2.0
"""Seconds to wait for a holder: one that was killed needs a moment to end."""

_PAUSE = 0.02
"""Seconds between two attempts."""

_HOLDER = re.compile(r"process \d+ on \S+, since [-0-9]+ [:0-9]+ UTC\n")
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def held(
    path: Path,
    place: str | os.PathLike,
    *,
    patience: float | None = None,
    say: Callable[[str], None] = _say,
) -> Iterator[None]:
    """Hold a lock during the block; its file is removed afterwards.

    Args:
        path: of the lock file, in a folder that exists.
        place: what the lock protects, for messages.
        patience: seconds to wait for another holder; None is `PATIENCE`.
        say: receives a line where the file system has no locks.

    Raises:
        UserError: another process holds the lock, and is named; or the file cannot be written.
    """
    end = time.monotonic() + (PATIENCE if patience is None else patience)
    try:
        file = _acquired(path, place, end, say)
    except OSError as error:
        raise UserError(f"{place}: cannot be locked ({path}: {error.strerror})") from error
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _is_at(file, path):
                path.unlink()  # before it is released: the next holder makes a new file
        os.close(file)


def _acquired(path: Path, place: str | os.PathLike, end: float, say: Callable[[str], None]) -> int:
    """Descriptor of the locked file, which names this process."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if _is_locked(file, place, say):
                if _is_at(file, path):  # else the holder before has removed it
                    with contextlib.suppress(OSError):  # a full disk costs only the name
                        os.ftruncate(file, 0)
                        os.pwrite(file, _this_process().encode(), 0)
                    return file
            elif time.monotonic() >= end:
                holder = os.pread(file, 500, 0).decode(errors="replace")
                who = holder.strip() if _HOLDER.fullmatch(holder) else "another process"
                raise UserError(
                    f"{place}: {who} is writing here; wait until it ends, or choose another place"
                )
            else:
                time.sleep(_PAUSE)
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _is_locked(file: int, place: str | os.PathLike, say: Callable[[str], None]) -> bool:
    """Try to lock a file; also true where the file system has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        if error.errno not in _UNSUPPORTED:
            raise
        say(f"{place}: this file system has no locks; start no other process that writes here")
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether a path still leads to an open file."""
    try:
        return os.path.samestat(os.fstat(file), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _this_process() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    return f"process {os.getpid()} on {socket.gethostname()}, since {now} UTC\n"

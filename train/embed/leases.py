"""Leases: which process works on what, agreed on by files in a shared folder, without a head node.

A lease is a file that is made atomically with its holder's name in it. The holder renews it by its
time of modification. It ends when the holder removes it, when the holder is a process of this
machine that is gone, or when it was not renewed for some time by the clock of the file system.

A lease saves work and no more: what is done under it is the same whoever does it, and is written
whole. A holder that was only slow, and lost its lease, does no harm.
"""

import contextlib
import json
import os
import socket
import threading
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from modernbert_jax.io import outputs

_REMOVALS = 10
"""How often other processes may remove the folder before a lease in it is made."""

_RENEWALS = 4
"""Renewals within the time after which a lease ends."""


class Leases:
    """The leases in a folder, as one process sees them; a context manager that renews its own."""

    def __init__(self, folder: Path, seconds: float):
        """Open a folder.

        Args:
            folder: made if it does not exist, and removed at the end if it is empty.
            seconds: after which a lease ends that is not renewed.
        """
        self._folder, self._seconds = folder, seconds
        self._held: set[Path] = set()
        self._ended = threading.Event()
        self._renewal = threading.Thread(target=self._renew, daemon=True)

    def __enter__(self) -> "Leases":
        self._renewal.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._renewal.join()
        for path in self._held:
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another process has leases
            self._folder.rmdir()

    @contextlib.contextmanager
    def taken(self, name: str) -> Iterator[bool]:
        """Whether this process got a lease, which it holds during the block."""
        path = self._folder / name
        if not self._take(path):
            yield False
            return
        self._held.add(path)
        try:
            yield True
        finally:
            self._held.discard(path)
            path.unlink(missing_ok=True)

    def remove(self, names: Iterable[str]) -> None:
        """Remove leases on what is done, such as those of processes that were killed after it."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def _take(self, path: Path) -> bool:
        """Make a lease, after one that has ended is removed."""
        if self._made(path):
            return True
        try:
            holder, age = path.read_text(), self._now() - path.stat().st_mtime
        except FileNotFoundError:  # the holder has just removed it
            return self._made(path)
        if age < self._seconds and not _is_gone(holder):
            return False
        # Of several processes that see it, one moves it away. If it moves away the lease of one
        # that was faster still, both do the same work.
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}.ended")
        with contextlib.suppress(FileNotFoundError):
            path.rename(aside)
            aside.unlink()
        return self._made(path)

    def _made(self, path: Path) -> bool:
        """Make a lease with its content at once. False if there is one."""
        try:
            whole = self._new(path)
        except OSError as error:
            raise outputs.unwritable(self._folder, error) from error
        try:
            os.link(whole, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                path.open("x").close()
            except FileExistsError:
                return False
            whole.replace(path)
        finally:
            whole.unlink(missing_ok=True)
        return True

    def _new(self, path: Path) -> Path:
        """A file for a lease, beside it, that has its content."""
        whole = path.with_name(f"{path.name}.{uuid.uuid4().hex}.new")
        content = json.dumps(_this_process())
        for _ in range(_REMOVALS):
            self._folder.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # a process that ends removed the folder
                whole.write_text(content)
                return whole
        whole.write_text(content)
        return whole

    def _now(self) -> float:
        """Time by the clock of the file system, which may be another machine's."""
        probe = self._folder / f"{uuid.uuid4().hex}.clock"
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()

    def _renew(self) -> None:
        while not self._ended.wait(self._seconds / _RENEWALS):
            for path in list(self._held):
                with contextlib.suppress(OSError):
                    os.utime(path)


def _this_process() -> dict[str, Any]:
    """What identifies this process among all of all machines."""
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "process": os.getpid(),
        "began": _began(os.getpid()),
    }


def _machine() -> str:
    """A name for what processes can see each other; "" where the system has none."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _began(process: int) -> str:
    """When a process of this machine began, in ticks since it booted; "" if it is not known."""
    try:
        # The name of the program, which may hold anything, ends with the last bracket.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _is_gone(holder: str) -> bool:
    """Whether the holder of a lease was a process of this machine that has ended."""
    own = _this_process()
    try:
        other = json.loads(holder)
        same = own["machine"] and all(other[key] == own[key] for key in ("host", "machine"))
        return bool(same) and _began(int(other["process"])) != other["began"]
    except (ValueError, KeyError, TypeError):
        return False

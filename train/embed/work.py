"""Which shard is next: shared among threads, processes and hosts."""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterator

from .folder import Folder, name_of
from .leases import Leases

PAUSE = 1.0
"""Seconds between two looks at shards that other processes work on."""


class Stopped(Exception):
    """The work was stopped, because another thread failed or the user interrupted it."""


class Work:
    """The shards that are not written yet, as the threads of this process take them."""

    def __init__(self, folder: Folder, shards: int, leases: Leases | None, part: tuple[int, int]):
        """Look at what is done.

        Args:
            folder: of the shards.
            shards: their number.
            leases: those of all processes; None divides shards by their numbers.
            part: number of this process, and number of processes, for that.
        """
        self._folder, self._leases = folder, leases
        number, of = part
        self._own = range(number, shards, of)
        self._taken: set[int] = set()
        self._lock, self._stop = threading.Lock(), threading.Event()
        self.done = folder.finished()
        """Shards that are written, by any process."""

    @property
    def stopped(self) -> bool:
        """Whether no further shard is to be begun, or continued."""
        return self._stop.is_set()

    def stop(self) -> None:
        """Let all threads end."""
        self._stop.set()

    def check(self) -> None:
        """Raise `Stopped` if the work was stopped."""
        if self.stopped:
            raise Stopped

    def shards(self) -> Generator[int]:
        """Yield shards to write, until all are written, by this process or by others.

        A shard belongs to the caller until it asks for the next one. Waits for the shards of other
        processes, whose leases may end.
        """
        while not self.stopped:
            waiting = False
            for shard in self._candidates():
                with self._begun(shard) as begun:
                    if begun:
                        yield shard
                        self.done.add(shard)
                    waiting |= not begun
                if self.stopped:
                    return
            if not waiting:
                return
            self._stop.wait(PAUSE)

    def _candidates(self) -> Iterator[int]:
        """Shards that neither were written, nor are worked on in this process, in their order."""
        with self._lock:
            self.done |= self._folder.finished()
        for shard in self._own:
            if shard not in self.done and shard not in self._taken:
                yield shard

    @contextlib.contextmanager
    def _begun(self, shard: int) -> Iterator[bool]:
        """Whether a shard is the caller's within the block."""
        with self._lock:
            if shard in self._taken or shard in self.done:
                mine = False
            else:
                mine = True
                self._taken.add(shard)
        try:
            if not mine:
                yield False
            elif self._leases is None:
                yield True
            else:
                with self._leases.taken(name_of(shard)) as got:
                    yield got and not self._folder.has(shard)
        finally:
            if mine:
                self._taken.discard(shard)


def once(
    name: str,
    ready: Callable[[], bool],
    do: Callable[[], None],
    leases: Leases | None,
    first: bool,
) -> None:
    """Return when something is done that one process does for all.

    Args:
        name: of its lease.
        ready: whether it is done.
        do: does it.
        leases: of all processes, or None.
        first: whether this process does it where there are no leases.
    """
    while not ready():
        with contextlib.nullcontext(first) if leases is None else leases.taken(name) as mine:
            if mine and not ready():
                do()
                return
        time.sleep(PAUSE / 4)

"""How far a conversion is: a bar on a terminal, elsewhere a line now and then."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

INTERVAL = 5.0
"""Seconds between lines."""


@contextlib.contextmanager
def drawn() -> Iterator[Callable[[int, int], None]]:
    """Gives a function of the bytes done and all of them, which draws on stderr."""
    from rich import console, progress

    screen = console.Console(stderr=True)
    if not screen.is_terminal:
        yield _Lines()
        return
    columns = (progress.BarColumn(), progress.DownloadColumn(), progress.TimeRemainingColumn())
    with progress.Progress("converting", *columns, console=screen, transient=True) as bars:
        task = bars.add_task("")

        def draw(done: int, total: int) -> None:
            bars.update(task, completed=done, total=total)

        yield draw


class _Lines:
    def __init__(self):
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= INTERVAL:
            self._last = time.monotonic()
            share = done / total if total else 1.0
            print(
                f"converted {done / 1e9:.2f} of {total / 1e9:.2f} GB, {share:.0%}", file=sys.stderr
            )

"""Progress of long work: a bar on a terminal, and one line per interval elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import jax
from rich import console as rich_console
from rich import progress as rich_progress

from .text import for_terminal

LINE_SECONDS = 10.0
"""Seconds between lines without a terminal."""

_BYTES = "byte"


class Progress:
    """A counter of steps, or of any other unit, out of a total. Only process 0 shows anything."""

    def __init__(
        self, total: int, of: str = "step", *, delay: float = 0.0, shown: bool | None = None
    ):
        """A counter to use as a context manager.

        Args:
            total: number of steps.
            of: what is counted; bytes, "byte", are shown in GB.
            delay: seconds before the first line without a terminal.
            shown: False shows nothing; by default only process 0 of jax shows anything.
        """
        self.total = total
        self._of = of
        self._shown = jax.process_index() == 0 if shown is None else shown
        self._console = rich_console.Console(stderr=True)
        self._bar: rich_progress.Progress | None = None
        self._first_line = self._next_line = time.monotonic() + delay

    def __enter__(self) -> "Progress":
        if self._shown and self._console.is_terminal:
            counted_bytes = self._of == _BYTES
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}", markup=False),
                rich_progress.BarColumn(),
                rich_progress.DownloadColumn()
                if counted_bytes
                else rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[numbers]}", markup=False),
                rich_progress.TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, numbers="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, name: str, step: int, numbers: str = "") -> None:
        """Show that `step` steps are done, with the name of the current part and its numbers."""
        if self._bar is not None:
            self._bar.update(
                self._task, completed=step, total=self.total, description=name, numbers=numbers
            )
            return
        now, done = time.monotonic(), step == self.total
        if now >= self._next_line or (done and now >= self._first_line):
            self._next_line = now + LINE_SECONDS
            self.say(f"{name}  {self._counted(step)}  {numbers}".rstrip())

    def say(self, line: str) -> None:
        """Show a line that stays."""
        if self._bar is not None:
            self._bar.console.print(for_terminal(line))
        elif self._shown:
            _print(line)

    def _counted(self, step: int) -> str:
        if self._of == _BYTES:
            return f"{step / 1e9:.2f}/{self.total / 1e9:.2f} GB"
        return f"{self._of} {step:,}/{self.total:,}"


@contextlib.contextmanager
def transfer(name: str) -> Iterator[Callable[[int, int], None]]:
    """A function of the bytes done and in total, which shows the progress of reading or writing.

    Short work prints no line. No backend of jax is started.
    """
    with Progress(0, _BYTES, delay=LINE_SECONDS, shown=True) as progress:

        def advance(done: int, total: int) -> None:
            progress.total = total
            progress.update(name, done)

        yield advance


def wide_console() -> rich_console.Console:
    """A console for tables, as wide as the terminal, or of 120 columns without one."""
    console = rich_console.Console()
    return console if console.is_terminal else rich_console.Console(width=120)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Print the name of a part of the work when it begins, and its duration when it ends."""
    if jax.process_index() == 0:
        _print(f"{name} ...")
    began = time.monotonic()
    yield
    if jax.process_index() == 0:
        _print(f"{name}: {time.monotonic() - began:.1f} s")


def _print(line: str) -> None:
    """Print to stderr; a log on a full disk loses the line instead of ending the work."""
    with contextlib.suppress(OSError):
        print(f"{line}\n", end="", file=sys.stderr, flush=True)  # one write: threads print too

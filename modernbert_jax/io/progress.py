"""What a person sees of long work: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator

import jax
from rich import console as rich_console
from rich import progress as rich_progress

LINE_SECONDS = 10.0
"""Between lines where there is no terminal."""


class Progress:
    """Steps done of a total, with a few numbers. Only process 0 shows anything."""

    def __init__(self, total: int, of: str = "step"):
        """For work of `total` steps, or whatever else is counted; use as a context manager."""
        self.total = total
        self._of = of
        self._shows = jax.process_index() == 0
        self._console = rich_console.Console(stderr=True)
        self._bar: rich_progress.Progress | None = None
        self._next_line = 0.0

    def __enter__(self) -> "Progress":
        if self._shows and self._console.is_terminal:
            self._bar = rich_progress.Progress(
                rich_progress.TextColumn("{task.description}"),
                rich_progress.BarColumn(),
                rich_progress.MofNCompleteColumn(),
                rich_progress.TextColumn("{task.fields[numbers]}"),
                rich_progress.TimeRemainingColumn(),
                console=self._console,
            )
            self._bar.start()
            self._task = self._bar.add_task("", total=self.total, numbers="")
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, name: str, step: int, numbers: str) -> None:
        """Shows that `step` steps are done, the current part's name, and its numbers."""
        if self._bar is not None:
            self._bar.update(
                self._task, completed=step, total=self.total, description=name, numbers=numbers
            )
        elif time.monotonic() >= self._next_line or step == self.total:
            self._next_line = time.monotonic() + LINE_SECONDS
            self.say(f"{name}  {self._of} {step:,}/{self.total:,}  {numbers}")

    def say(self, line: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(line, highlight=False)
        elif self._shows:
            _print(line)


def wide_console() -> rich_console.Console:
    """For tables: as wide as the terminal; 120 columns where there is none."""
    console = rich_console.Console()
    return console if console.is_terminal else rich_console.Console(width=120)


@contextlib.contextmanager
def phase(name: str) -> Iterator[None]:
    """Says that a part of the work begins, and how long it took."""
    if jax.process_index() == 0:
        _print(f"{name} ...")
    began = time.monotonic()
    yield
    if jax.process_index() == 0:
        _print(f"{name}: {time.monotonic() - began:.1f} s")


def _print(line: str) -> None:
    """On stderr; a log whose disk is full loses a line rather than ending the work."""
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)

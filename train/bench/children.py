"""Processes that a benchmark starts. They end with it, also where SIGTERM ends it."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any


@contextlib.contextmanager
def child(
    command: Sequence[str | Path], grace: float = 0.0, **options: Any
) -> Iterator[subprocess.Popen]:
    """A process that ends with the block.

    Args:
        command: program and arguments.
        grace: seconds that the process has to end after SIGTERM; 0 kills it at once.
        options: others of `subprocess.Popen`.
    """
    with ended_by_signals():
        process = subprocess.Popen([*map(str, command)], **options)
        try:
            yield process
        finally:
            if grace:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(grace)
            process.kill()
            process.wait()


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within the block SIGTERM ends this process by `SystemExit`, so that children end first."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set what a signal does
        return
    before = signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)

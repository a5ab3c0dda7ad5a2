"""A training in a process of its own, which is ended when it takes too much memory."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from .. import children

_INTERVAL = 0.2
"""Seconds between two looks at the memory of a process."""


class OutOfMemory(Exception):
    """A process has taken more memory than it may."""


def run(command: Sequence[str | Path], log: Path, memory: float = 0.0) -> None:
    """Run a command to its end, with its output in a file.

    Args:
        command: program and arguments.
        log: file for stdout and stderr.
        memory: largest resident memory in GB; 0 sets no limit.

    Raises:
        OutOfMemory: it took more; the process is ended.
        RuntimeError: it failed; the message has the last line of its output.
    """
    with (
        log.open("wb") as file,
        children.child(command, stdout=file, stderr=subprocess.STDOUT) as process,
    ):
        while process.poll() is None:
            if memory and resident(process.pid) > memory * 1e9:
                raise OutOfMemory(f"more than {memory:g} GB")
            time.sleep(_INTERVAL)
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise RuntimeError(f"exit code {process.returncode}: {lines[-1]} (see {log})")


def resident(process: int) -> int:
    """Resident memory of a process in bytes; 0 where the system does not say."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    sizes = (line.split()[1] for line in text.splitlines() if line.startswith("VmRSS:"))
    return 1024 * int(next(sizes, "0"))

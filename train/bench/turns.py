"""Sides of a comparison as processes of their own that take turns.

A worker is a script that is called with the name of its side and more arguments. It does its work
once and answers with a line of JSON; then it repeats both for every line that it reads.
"""

import contextlib
import json
import math
import subprocess
import sys
import time
from collections import ChainMap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

from . import children

Answer = dict[str, Any]


def take_turns(
    script: Path,
    arguments: Sequence[Path | str],
    sides: Sequence[str],
    repeats: int,
    together: bool = True,
    enough: float = math.inf,
) -> tuple[dict[str, Answer], dict[str, list[Answer]]]:
    """Run all sides of a worker.

    Args:
        script: The worker.
        arguments: Arguments after the name of the side.
        sides: Names of the sides.
        repeats: Rounds, in each of which every side has a turn.
        together: Whether all sides are in memory; otherwise each ends before the next begins.
        enough: Seconds after which no further round begins.

    Returns:
        The first answers, and the answers of all turns, by side.

    Raises:
        RuntimeError: a process ended early.
    """
    if not together:
        alone = [take_turns(script, arguments, (side,), repeats, True, enough) for side in sides]
        return (
            dict(ChainMap(*(ready for ready, _ in alone))),
            dict(ChainMap(*(turns for _, turns in alone))),
        )
    with contextlib.ExitStack() as stack:
        workers: dict[str, _Worker] = {}
        ready: dict[str, Answer] = {}
        for side in sides:
            workers[side] = stack.enter_context(_worker(script, side, *arguments))
            ready[side] = _answer(side, workers[side])  # one at a time loads and warms up
        turns: dict[str, list[Answer]] = {side: [] for side in sides}
        began = time.monotonic()
        for round_ in range(repeats):
            if round_ and time.monotonic() - began >= enough:
                break
            for side, worker in workers.items():
                worker.stdin.write("again\n")
                worker.stdin.flush()
                turns[side].append(_answer(side, worker))
    return ready, turns


class _Worker(NamedTuple):
    """The process of a side, with its pipes."""

    process: subprocess.Popen[str]
    stdin: IO[str]
    stdout: IO[str]


@contextlib.contextmanager
def _worker(script: Path, side: str, *arguments: Path | str) -> Iterator[_Worker]:
    """Start the process of a side; it ends with the block."""
    command = [sys.executable, "-P", script, side, *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with children.child(command, text=True, **pipes) as process:
        assert process.stdin is not None and process.stdout is not None  # both are pipes
        yield _Worker(process, process.stdin, process.stdout)


def _answer(side: str, worker: _Worker) -> Answer:
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"the process of {side} ended with exit code {worker.process.wait()}")
    return json.loads(line)

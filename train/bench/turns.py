"""Sides of a comparison as processes of their own that take turns.

A worker is a script that is called with the name of its side and more arguments. It does its work
once, answers with a line of JSON, and answers again for every line that it reads.
"""

import contextlib
import json
import subprocess
import sys
from collections import ChainMap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


def take_turns(
    script: Path,
    arguments: Sequence[Path],
    sides: Sequence[str],
    repeats: int,
    together: bool = True,
) -> tuple[dict[str, Answer], dict[str, list[Answer]]]:
    """First answers, and those of `repeats` turns, by side.

    Turns go round `together`, with all sides in memory, or a side ends before the next one begins.
    """
    if not together:
        alone = [take_turns(script, arguments, (side,), repeats) for side in sides]
        ready, turns = zip(*alone, strict=True)
        return dict(ChainMap(*ready)), dict(ChainMap(*turns))
    with contextlib.ExitStack() as stack:
        workers, ready = {}, {}
        for side in sides:
            workers[side] = stack.enter_context(worker(script, side, *arguments))
            ready[side] = answer(side, workers[side])  # one loads and warms up at a time
        turns: dict[str, list[Answer]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side, process in workers.items():
                turns[side].append(again(side, process))
    return ready, turns


@contextlib.contextmanager
def worker(script: Path, side: str, *arguments: Path | str) -> Iterator[subprocess.Popen]:
    """The process of a side; it ends with the block."""
    command = [sys.executable, "-P", script, side, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.stdin.close()
        process.kill()
        process.wait()


def answer(side: str, process: subprocess.Popen) -> Answer:
    """The next answer of a side. Raises `RuntimeError` if its process ended instead."""
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the process of {side} ended with exit code {process.wait()}")
    return json.loads(line)


def again(side: str, process: subprocess.Popen) -> Answer:
    """Has a side do its work once more; its answer."""
    process.stdin.write("again\n")
    process.stdin.flush()
    return answer(side, process)

"""A command that is killed as it publishes a file, and run again until it ends."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from processes import QUICK_COMPILES

PROGRAM = """
import importlib, json, os, signal, sys
from pathlib import Path
steps, constants, words = map(json.loads, sys.argv[1:])
for name, value in constants.items():
    module, _, constant = name.rpartition(".")
    setattr(importlib.import_module(f"modernbert_jax.train.retrieval.{module}"), constant, value)

def counted(publish):
    def call(*arguments):
        global steps
        if (steps := steps - 1) == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return publish(*arguments)
    return call

Path.replace, Path.rename, os.link = map(counted, (Path.replace, Path.rename, os.link))
from modernbert_jax.cli import main
sys.exit(main(words))
"""


def run(
    words: Sequence[object], constants: Mapping[str, int], steps: int = 0
) -> subprocess.CompletedProcess:
    """Run a command, which kills itself as it publishes the file of this number, from 1.

    Args:
        words: of the command.
        constants: values of constants of modules of `train.retrieval`, by MODULE.NAME.
        steps: 0 never kills.
    """
    arguments = [json.dumps(x) for x in (steps, constants, [*map(str, words)])]
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": QUICK_COMPILES},
        capture_output=True,
        text=True,
        timeout=600,
    )


def until_done(words: Sequence[object], constants: Mapping[str, int], steps: Sequence[int]) -> int:
    """Run a command again and again, killed after these numbers of files in turn; count the kills.

    Fails if it ends with an error.
    """
    for kills, limit in enumerate(itertools.cycle(steps)):
        done = run(words, constants, limit)
        if done.returncode == 0:
            return kills
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert kills < 100, "no progress"
    raise AssertionError

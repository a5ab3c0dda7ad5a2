"""The recorded program, run by its command line, and by its public class in its own Python."""

import itertools
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

XLA_FLAGS = "--xla_backend_optimization_level=0"
"""Options of XLA unless the environment has XLA_FLAGS. Machine code is not optimised, which
halves the time; XLA's own passes over the program, such as fusion, are as usual."""

_CACHE_ALL = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
"""Programs that compile quickly are kept in the user's cache as well."""

_SESSION = """
import contextlib, io, json, runpy, sys
program, results = sys.argv[1], []
for arguments in json.load(sys.stdin):
    sys.argv, code = [program, *arguments], 0
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        except Exception as error:
            code = repr(error)
    for stream in (out, err):
        stream.flush()
    texts = [stream.buffer.getvalue().decode() for stream in (out, err)]
    results.append([code, *texts])
print(json.dumps(results))
"""
"""Source that runs the program's start script for each list of arguments, in one process."""


class Result(NamedTuple):
    """Exit code and output of a command."""

    code: int
    stdout: str
    stderr: str


class Program:
    """An installed `modernbert-jax`, run in a folder that all paths are relative to."""

    def __init__(self, path: Path, folder: Path):
        """Take the start script at `path`; its Python must be in the same folder."""
        self.path, self.python, self.folder = path, path.parent / "python", folder
        one_device = {"JAX_NUM_CPU_DEVICES": "1"}  # unless a command asks for more
        self._environment = {"XLA_FLAGS": XLA_FLAGS, **one_device, **os.environ}
        self._environment |= {"COLUMNS": "100", "JAX_PLATFORMS": "cpu", _CACHE_ALL: "0"}

    def run(self, *arguments: str, fails: bool = False) -> Result:
        """Run one command in a process of its own; one that `fails` is expected to."""
        began = time.monotonic()
        done = self._start([self.path, *arguments])
        out, err = done.communicate()
        result = Result(done.returncode, out, err)
        after = dict(itertools.pairwise(arguments))
        told = " ".join([arguments[0], after.get("--output", "")])
        print(f"  {told}: {time.monotonic() - began:.0f} s", flush=True)
        return result if fails else self._told(arguments, result)

    def run_together(self, commands: Sequence[Sequence[str]]) -> list[Result]:
        """Run short commands one after another in one process, which saves their start."""
        session = self._start([self.python, "-P", "-c", _SESSION, self.path])
        out, err = session.communicate(json.dumps(commands))
        if session.returncode:
            return [Result(session.returncode, "", err)] * len(commands)
        results = [Result(*fields) for fields in json.loads(out.splitlines()[-1])]
        for arguments, result in zip(commands, results, strict=True):
            self._told(arguments, result)
        return results

    def run_killed(self, until: Callable[[], bool], *arguments: str) -> Result:
        """Run a command and kill it (SIGKILL) as soon as `until` is true; its code is then -9."""
        process = self._start([self.path, *arguments])
        while process.poll() is None and not until():
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        out, err = process.communicate()
        return Result(process.returncode, out, err)

    def run_python(self, code: str, *arguments: str) -> Result:
        """Run Python code with the program's package installed."""
        process = self._start([self.python, "-P", "-c", code, *arguments])
        out, err = process.communicate()
        return self._told(["python"], Result(process.returncode, out, err))

    def _start(self, command: Sequence[str | Path]) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=self.folder,
            env=self._environment,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def _told(self, arguments: Sequence[str], result: Result) -> Result:
        """The result; a failure is shown, because it may be a mistake of the recording."""
        if result.code:
            last = (result.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"  exit code {result.code}: {' '.join(arguments)[:120]}\n    {last}", flush=True)
        return result

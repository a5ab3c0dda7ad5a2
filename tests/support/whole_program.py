"""The program as a process of its own, and what it leaves behind."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = [
    sys.executable,
    "-c",
    "import sys; from modernbert_jax.cli import main; sys.exit(main())",
]


class Result(NamedTuple):
    """What a process of the program has left."""

    code: int
    out: str
    err: str


def start(folder: Path, *words: str, **environment: str) -> subprocess.Popen[str]:
    """Start a command in a folder."""
    more = {"JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1", "COLUMNS": "100", **environment}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*PROGRAM, *words],
        cwd=folder,
        env={**os.environ, **more},
        stdin=subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
        text=True,
        errors="surrogateescape",
    )


def ended(process: subprocess.Popen[str]) -> Result:
    """Wait for a command."""
    out, err = process.communicate(timeout=300)
    return Result(process.returncode, out, err)


def run(folder: Path, *words: str, **environment: str) -> Result:
    """Run a command in a folder."""
    return ended(start(folder, *words, **environment))


def names(folder: Path) -> set[str]:
    """All files and folders below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def refused(folder: Path, *words: str, **environment: str) -> str:
    """The one line of a command that fails with wrong input and leaves nothing behind."""
    before = names(folder)
    code, out, err = run(folder, *words, **environment)
    assert code == 2, (code, out, err)
    assert "Traceback" not in err
    line = err.strip().splitlines()[-1]
    assert line.startswith("modernbert-jax: ") and len(line) < 2500, err
    assert names(folder) == before
    return line


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file."""
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))

"""Every example of README and guides that a CPU can run, from its text: make test-docs

The package is installed from its wheel, and the examples run in a folder outside the checkout.
Weights are random and data small (`page_inputs`), so numbers are compared only where a page says
that they are exact; the other words of an output have to be there, in order.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import page_inputs
import pages
import pairs
import pytest

pytestmark = pytest.mark.slow

ROOMS = ("start", "guides", "how", "reference")
DOCS = pages.ROOT / "docs"
GUIDES = [pages.README, DOCS / "index.md", *(p for p in pages.PAGES if p.parent.name in ROOMS)]
RUNNABLE = [
    p for p in GUIDES if any(not b.reason for b in pages.blocks(p, "bash", "console", "python"))
]

SHORTER = {
    "modernbert-jax pretrain nano": "--stages.0.tokens 16384 --stages.1.tokens 16384"
    " --stages.2.tokens 16384 --eval-rows 8 --keep 9",
    "modernbert-jax finetune (ner|rte|mrpc|classification)": "--epochs 1",
    "modernbert-jax sweep": "--epochs 1",
}
"""Options that are added to commands, by their beginning, so that they take seconds."""

OWN = {
    "rerankers": {
        "train.jsonl": lambda path: pairs.write(path, _labelled()),
        "dev.jsonl": lambda path: pairs.write(path, _labelled()),
    },
    "sparse": {"train.jsonl": lambda path: pairs.write(path, pairs.records(20, 1))},
}
"""Files of some pages with other content than elsewhere."""


def _labelled() -> list[dict]:
    rows = pairs.records(20, 1)
    return [
        {"query": row["query"], "document": row[key], "label": label}
        for row in rows
        for key, label in (("positive", 1), ("negative_0", 0))
    ]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Where the wheel is installed, with a cache of the hub that has stand-ins."""
    folder = tmp_path_factory.mktemp("installed")
    source, site, hub = folder / "source", folder / "site", folder / "hub"
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("modernbert_jax", "convert", "train", "configs"):
        shutil.copytree(pages.ROOT / name, source / name, ignore=skip)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copyfile(pages.ROOT / name, source / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install")
    local = ("--no-build-isolation", "--no-deps", "--target", str(site), str(source))
    subprocess.run([*pip, *local], check=True)
    page_inputs.cache(hub)
    variables = {
        "PATH": f"{site / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(site),
        "PYTHONSAFEPATH": "1",
        "HF_HUB_CACHE": str(hub),
        "HF_HUB_OFFLINE": "1",
        "JAX_PLATFORMS": "cpu",
        "COLUMNS": "120",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
    }
    made = {**os.environ, **variables}
    code = "import modernbert_jax; print(modernbert_jax.__file__)"
    done = subprocess.run([sys.executable, "-c", code], env=made, capture_output=True, text=True)
    assert done.stdout.startswith(str(site)), done
    return made


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda p: str(p.relative_to(pages.ROOT)))
def test_examples_run(page, environment, tmp_path):
    """All of a page, in its order and in one folder."""
    with Reader(tmp_path, environment, OWN.get(page.stem, {})) as reader:
        for block in pages.blocks(page, "bash", "console", "python"):
            if block.reason:
                continue
            if block.language == "python":
                reader.provide(block.text)
                reader.python(block)
            else:
                for command, expected in block.commands():
                    _compare(expected, reader.shell(command, block), block)


def test_the_picture_is_what_its_script_draws(tmp_path):
    script = DOCS / "generator" / "picture.py"
    code = (
        f"import pathlib, runpy; runpy.run_path({str(script)!r})['draw'](pathlib.Path('new.svg'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    drawn, stored = (p.read_text() for p in (tmp_path / "new.svg", DOCS / "images" / "packing.svg"))
    version = re.compile(r"Matplotlib v[\d.]+")
    if version.findall(drawn) == version.findall(stored):
        assert drawn == stored


def test_the_notebook_runs(environment, tmp_path):
    """Its cells as one program; lines of the shell are commands."""
    notebook = json.loads((DOCS / "notebooks" / "search.ipynb").read_text())
    program = ["import subprocess"]
    for cell in notebook["cells"]:
        assert not cell.get("outputs"), "outputs are not stored"
        text = "".join(cell["source"])
        if text.startswith("!"):
            text = f"subprocess.run(f{text[1:]!r}, shell=True, check=True)"
        program += [text] if cell["cell_type"] == "code" else []
    options = {"cwd": tmp_path, "env": environment, "text": True, "capture_output": True}
    done = subprocess.run(["python", "-c", "\n".join(program)], **options)
    assert done.returncode == 0, done.stderr[-4000:]
    assert (tmp_path / "retriever" / "export" / "modules.json").is_file()


INTERPRETER = """
import contextlib, json, sys, traceback
names = {"__name__": "__main__"}
with open(sys.argv[1], "a", buffering=1) as log:
    for line in sys.stdin:
        with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            try:
                exec(json.loads(line), names)
                answer = "done"
            except Exception:
                traceback.print_exc()
                answer = "failed"
        print(answer, flush=True)
"""
"""Runs blocks of Python from its input, one after another, with the same variables."""


class Reader:
    """Somebody who types the examples of a page in a folder; a context manager."""

    def __init__(self, folder: Path, environment: dict[str, str], own: dict):
        self.folder, self.environment, self.own = folder, environment, own
        self.servers: list[subprocess.Popen] = []
        self.interpreter: subprocess.Popen | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_) -> None:
        for server in self.servers:
            server.terminate()
        if self.interpreter is not None:
            self.interpreter.communicate()
        assert not any(server.wait(60) for server in self.servers)

    def provide(self, example: str) -> None:
        """Make the files that an example needs."""
        page_inputs.provide(self.folder, example, self.own)

    def run(self, words: list[str], block: pages.Block) -> str:
        """What a program prints that has to end well."""
        start = time.monotonic()
        optimised = {"XLA_FLAGS": ""} if "pretrain nano" in words[-1] else {}  # it takes steps
        options = {"cwd": self.folder, "env": self.environment | optimised, "text": True}
        out, both = subprocess.PIPE, subprocess.STDOUT
        done = subprocess.run(words, **options, stdout=out, stderr=both)
        print(f"{time.monotonic() - start:.0f} s  {block.place}  {words[-1][:150]}")
        assert done.returncode == 0, (block.place, words[-1], done.stdout[-4000:])
        return done.stdout.replace(str(self.folder), "/home/me")

    def python(self, block: pages.Block) -> None:
        """Run a block of Python, after the others of the page in one interpreter."""
        log = self.folder / "python.log"
        if self.interpreter is None:
            pipe, options = subprocess.PIPE, {"cwd": self.folder, "env": self.environment}
            self.interpreter = subprocess.Popen(
                ["python", "-c", INTERPRETER, log], stdin=pipe, stdout=pipe, text=True, **options
            )
        self.interpreter.stdin.write(json.dumps(block.text) + "\n")
        self.interpreter.stdin.flush()
        assert self.interpreter.stdout.readline() == "done\n", (
            block.place,
            log.read_text()[-4000:],
        )

    def shell(self, command: str, block: pages.Block) -> str:
        """What a command prints. Of `make` and `pip` the target and the extra have to exist."""
        if command.startswith("make "):
            target = command.split()[1]
            assert re.search(rf"^{target}:", (pages.ROOT / "Makefile").read_text(), re.MULTILINE)
            return ""
        if command.startswith("pip install"):
            project = (pages.ROOT / "pyproject.toml").read_text()
            for extra in re.findall(r"\[(.*?)\]", command):
                assert re.search(rf"^{extra} = \[", project, re.MULTILINE)
            return ""
        self.provide(command)
        if command.startswith("modernbert-jax serve"):
            return self.serve(command)
        for beginning, options in SHORTER.items():
            if re.match(beginning, command) and "--dry-run" not in command:
                command = f"{command.partition(' #')[0].rstrip()} {options}"
        return self.run(["bash", "-c", command], block)

    def serve(self, command: str) -> str:
        """What a server prints until it serves, on a port that is free."""
        log = self.folder / "server.log"
        options = {"cwd": self.folder, "env": self.environment}
        with log.open("w") as file:
            words = command.replace("8080", "0").split()
            server = subprocess.Popen(words, **options, stdout=file, stderr=file)
        self.servers.append(server)
        end = time.monotonic() + 300
        while "serving " not in log.read_text():
            assert server.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.2)
        return re.sub(r"127.0.0.1:\d+", "127.0.0.1:8080", log.read_text())


NUMBER = re.compile(r"[-+]?\d[\d,.]*(e[-+]?\d+)?%?")


def _compare(expected: list[str], printed: str, block: pages.Block) -> None:
    """Every expected line is there, in order; "..." stands for any lines."""
    if block.output == "no":
        return

    def plain(line: str) -> str:
        line = " ".join(line.split())
        return line if block.output == "exact" else NUMBER.sub("#", line)

    rest = iter([plain(line) for line in printed.splitlines()])
    for line in expected:
        if line.strip() and line.strip() != "...":
            assert plain(line) in rest, (block.place, line, printed[-4000:])

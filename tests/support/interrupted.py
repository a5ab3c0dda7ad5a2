"""Preparation of one corpus with many mishaps, each compared with an undisturbed one.

Run as a program, because its children are killed: `interrupted.py FOLDER MISHAP`. A child is a
fork that prepares into its own folder; a second child then finishes it without mishap. Prints a
JSON list with an object for each mishap.
"""

import errno
import hashlib
import json
import os
import resource
import signal
import sys
from pathlib import Path

import corpus

from modernbert_jax import UserError
from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.train.corpus import components, prepare
from modernbert_jax.train.corpus.sources import Corpus
from modernbert_jax.train.rows import records

components.UNIT_BYTES = 20_000
prepare.WINDOW_DOCUMENTS = 20


def work(folder: Path, name: str) -> None:
    """Prepare the corpus; this is the work that is interrupted."""
    prepare.prepare(
        Corpus([folder / "text.jsonl"]),
        Tokenizer.load(folder / "tokenizer"),
        folder / name,
        [64, 128],
        deduplicate=True,
        workers=1,
    )


def files(folder: Path) -> dict[str, str]:
    """Return hashes of all files, including hidden and temporary ones."""
    paths = (p for p in sorted(folder.rglob("*")) if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


WRITING = ("write", "write_bytes", "mkdir")


class Countdown:
    """Countdown of disk accesses that kills this process, or fills the disk, at the nth one."""

    def __init__(self, steps: int, full: bool = False):
        self.steps, self.full = steps, full
        for owner, name in (
            (os, "rename"),
            (os, "rmdir"),
            (os, "mkdir"),
            (os, "unlink"),
            (os, "replace"),
            (Path, "write_bytes"),
            (records, "row_record"),
        ):
            if hasattr(owner, name):
                setattr(owner, name, self.counted(getattr(owner, name)))
        writer = records.ArrayRecordWriter
        records.ArrayRecordWriter = lambda *a: Writer(writer(*a), self)

    def step(self) -> None:
        self.steps -= 1
        if self.steps == 0 and not self.full:
            os.kill(os.getpid(), signal.SIGKILL)

    def counted(self, function, error=OSError):
        def call(*args, **kwargs):
            self.step()
            if self.full and self.steps <= 0 and getattr(function, "__name__", "") in WRITING:
                text = "No space left on device"
                raise OSError(errno.ENOSPC, text) if error is OSError else error(text)
            result = function(*args, **kwargs)
            self.step()
            return result

        return call


class Writer:
    """A writer of records whose calls are all counted."""

    def __init__(self, writer, countdown: Countdown):
        functions = (writer.write, writer.close)
        self.write, self.close = (countdown.counted(f, RuntimeError) for f in functions)


def child(folder: Path, name: str, mishap) -> str:
    """Prepare in a fork with a mishap, and return what became of it."""
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(read)
        outcome = "finished"
        try:
            state = mishap()
            work(folder, name)
            outcome = f"finished {state.steps if state else ''}"
        except UserError as error:
            outcome = f"refused: {error}"
        except BaseException as error:
            outcome = f"failed: {error!r}"
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        os.write(write, outcome.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        outcome = pipe.read()
    _, status = os.waitpid(process, 0)
    return "killed" if os.WIFSIGNALED(status) else outcome


def limited(size: int):
    """Limit the size of files, which acts like a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def main(folder: Path, kind: str) -> None:
    outcome = child(folder, "whole", lambda: Countdown(1_000_000_000))
    steps = 1_000_000_000 - int(outcome.split()[1])
    whole = files(folder / "whole")
    if kind == "kill":
        points = {*range(1, 30, 4), *range(30, steps, steps // 16), *range(steps - 44, steps, 3)}
        mishaps = [(n, lambda n=n: Countdown(n)) for n in sorted(points)]
    else:
        mishaps = [(n, lambda n=n: limited(n)) for n in (0, 1500, 70_000)]
        points = range(10, steps, steps // 8)
        mishaps += [(n, lambda n=n: Countdown(n, full=True)) for n in points]
    results = []
    for number, mishap in mishaps:
        name = f"out-{number}"
        outcome = child(folder, name, mishap)
        partial = folder / f"{name}.partial"
        before = {p: p.stat().st_mtime_ns for p in partial.rglob("*.arrayrecord")}
        windows = {p.name for p in partial.rglob("window-*.json")}
        done = [
            p for p in before if f"window-{p.name.split('-', 1)[1].split('.')[0]}.json" in windows
        ]
        kept = {p.relative_to(partial): before[p] for p in done}
        looks_whole = (folder / name / "manifest.json").exists()
        last = child(folder, name, lambda: None)
        finished = {p: (folder / name / p).stat().st_mtime_ns for p in kept}
        results.append(
            {
                "at": number,
                "said": outcome,
                "then": last,
                "same": files(folder / name) == whole,
                "kept": len(kept),
                "redone": sum(kept[p] != finished[p] for p in kept),
                "whole": looks_whole,
                "rubbish": [p.name for p in folder.iterdir() if p.name.startswith(f"{name}.")
                            or p.name.startswith(".")],
            }
        )  # fmt: skip
    print(json.dumps(results))


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    corpus.write_jsonl(folder / "text.jsonl", [*corpus.texts(70), *corpus.texts(7)])
    (folder / "tokenizer").mkdir()
    corpus.make_tokenizer().save(folder / "tokenizer")
    main(folder, sys.argv[2])

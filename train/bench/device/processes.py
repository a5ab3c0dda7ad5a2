"""A part in a process of its own, whose results are on disk as soon as they are known.

Processes are forked from a server that has imported jax and used no device: a child begins at once,
and neither a crash nor device memory that it leaves behind reaches another one.
"""

import dataclasses
import faulthandler
import json
import multiprocessing
import multiprocessing.process
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path

from .registry import Part
from .results import Result, failure
from .scale import Scale

PRELOAD = ("modernbert_jax.train.pretrain.objective", "modernbert_jax.train.bench.device.registry")
"""Modules that the server imports once, for all children."""

ENVIRONMENT = {
    # Several libraries use the device one after another: none may take all of its memory.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What children find in their environment unless the user has set it."""

GRACE = 5.0
"""Seconds that a child gets to end itself before it is killed."""


@dataclasses.dataclass
class Running:
    """A part that has been started."""

    part: Part
    process: multiprocessing.process.BaseProcess
    path: Path
    """File of its results, one JSON object a line."""
    began: float

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.began

    def finish(self, seconds: float) -> list[Result]:
        """Results of the part, at most `seconds` from now; what is still running then is stopped.

        A part that was stopped or has crashed ends in a result that says so.
        """
        self.process.join(max(seconds, 0.0))
        ended = not self.process.is_alive()
        if not ended:
            self._stop()
        results = _read(self.path)
        if not ended:
            note = f"stopped after {self.seconds:.0f} s: its time was up"
            results.append(Result(name=self.part.name, status="skipped", note=note))
        elif self.process.exitcode:
            note = f"its process ended {_reason(self.process.exitcode)}"
            results.append(Result(name=self.part.name, status="failed", note=note))
        return [
            dataclasses.replace(r, part=self.part.name, group=r.group or self.part.group)
            for r in results
        ]

    def _stop(self) -> None:
        self.process.terminate()
        self.process.join(GRACE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


class Processes:
    """Starts parts; `folder` gets their results and a log of all that they print."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.log = folder / "log.txt"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([*PRELOAD])

    def start(self, part: Part, scale: Scale) -> Running:
        """Starts a part."""
        path = self.folder / f"{part.name.replace('/', '-').replace(' ', '-')}.jsonl"
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        environment = ENVIRONMENT | {
            "JAX_COMPILATION_CACHE_DIR": str(cache / "modernbert-jax" / "device"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        }
        process = self._context.Process(
            target=_child, args=(part, scale, path, self.log, environment), daemon=True
        )
        process.start()
        return Running(part, process, path, time.monotonic())

    def run(self, part: Part, scale: Scale, seconds: float) -> list[Result]:
        """Runs a part to its end."""
        return self.start(part, scale).finish(seconds)


def _child(part: Part, scale: Scale, path: Path, log: Path, environment: Mapping[str, str]) -> None:
    """Runs in the child: writes every result as a line, and an exception as the last one."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    print(f"--- {part.name}", file=sys.stderr, flush=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    faulthandler.register(signal.SIGTERM, chain=True)  # tells where a part was stopped
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    _configure(environment, scale)
    if part.background and not scale.tiny:
        os.nice(10)  # the host's side of what is timed comes first
    with path.open("a") as file:

        def write(result: Result) -> None:
            file.write(json.dumps(result.to_json()) + "\n")
            file.flush()

        try:
            for result in part.function(scale):
                write(result)
        except BaseException as error:
            write(failure(part.name, error))
            traceback.print_exc()
    print(f"--- {part.name}: {time.process_time():.1f} s of CPU", file=sys.stderr, flush=True)


def _configure(environment: Mapping[str, str], scale: Scale) -> None:
    """Tells jax, which is imported already, where its cache is."""
    import jax

    if scale.tiny:  # times mean nothing, and compiling is most of the work
        jax.config.update("jax_disable_most_optimizations", True)

    jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
    least = float(environment["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
    jax.config.update("jax_persistent_cache_min_compile_time_secs", least)


def _read(path: Path) -> list[Result]:
    """Results of a file; a line that a kill has cut off is left out."""
    if not path.exists():
        return []
    lines = path.read_text().split("\n")[:-1]
    return [Result.from_json(json.loads(line)) for line in lines]


def _reason(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"

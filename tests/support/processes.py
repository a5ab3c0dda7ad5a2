"""Local processes that run the program as one."""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from modernbert_jax import convert
from modernbert_jax.io import typed_json
from modernbert_jax.train.engine.config import TrainConfig
from modernbert_jax.train.engine.metrics import read_rows
from modernbert_jax.train.finetune import config as finetuning
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.pretrain.config import PretrainConfig

PROGRAM = "import sys; from modernbert_jax.cli import main; sys.exit(main())"

QUICK_COMPILES = "--xla_backend_optimization_level=0"
"""Flag with which XLA compiles in half the time."""


def train_on(devices: int, meshes: dict[str, dict], script: Path, folder: Path) -> None:
    """Run a script that trains on meshes of virtual devices, listed in `meshes.json`."""
    (folder / "meshes.json").write_text(json.dumps(meshes))
    flags = f"--xla_force_host_platform_device_count={devices} {QUICK_COMPILES}"
    subprocess.run(
        [sys.executable, script, folder],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
        timeout=1800,
    )


class Processes:
    """A command in `count` processes of `devices` virtual devices each; a context manager.

    The configuration determines whether `pretrain` or `finetune` is run; `sweep` holds options of a
    grid and runs `sweep` instead. Leaving the context kills running processes. Output goes to
    `<folder>.log-<number>`.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        count: int,
        devices: int = 1,
        sweep: Sequence[str] = (),
    ):
        self.folder = folder
        config = dataclasses.replace(config, output=str(folder))
        file = folder.with_suffix(".json")
        command = ["sweep" if sweep else "finetune", str(file), *sweep]
        if isinstance(config, PretrainConfig):
            command = ["pretrain", str(file)]
        is_task = isinstance(config, FinetuneConfig)
        to_json = finetuning.to_json if is_task else typed_json.to_json
        file.write_text(json.dumps(to_json(config)))
        several = ("--coordinator", f"127.0.0.1:{free_port()}", "--processes", str(count))
        self.logs = [folder.with_suffix(f".log-{i}") for i in range(count)]
        self.all = []
        for number, log in enumerate(self.logs):
            options = (*several, "--process", str(number)) if count > 1 else ()
            with log.open("wb") as output:
                self.all.append(
                    subprocess.Popen(
                        [sys.executable, "-c", PROGRAM, *command, *options],
                        env=os.environ
                        | {
                            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"
                            f" {QUICK_COMPILES}",
                            "JAX_PLATFORMS": "cpu",
                        },
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_) -> None:
        for process in self.all:
            process.kill()
            process.wait()

    def wait(self, seconds: float = 900) -> list[int]:
        """Return the exit codes of all processes; fail if they take longer."""
        end = time.monotonic() + seconds
        try:
            return [p.wait(max(end - time.monotonic(), 0.1)) for p in self.all]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s\n{self.output()}") from None

    def reach(self, step: int) -> None:
        """Wait until a step is in the metrics; fail if a process ends before."""
        while self.reached() < step:
            assert all(p.poll() is None for p in self.all), self.output()
            time.sleep(0.01)

    def reached(self) -> int:
        """Return the last step in the metrics."""
        rows = read_rows(self.folder / "metrics.jsonl")
        return rows[-1]["step"] if rows else 0

    def output(self) -> str:
        """Return the output of all processes."""
        return "\n".join(f"{log.name}:\n{log.read_text()}" for log in self.logs)


def kill_and_resume(config: TrainConfig, folder: Path, at: int, victims: Sequence[int]) -> None:
    """Kill some of two processes after a step, and let two new ones finish the run.

    Fails if a remaining process does not end by itself, or ends without an error.
    """
    with Processes(config, folder, count=2) as both:
        both.reach(at)
        for victim in victims:
            both.all[victim].kill()
        codes = both.wait(150)
    assert [codes[v] for v in victims] == [-signal.SIGKILL] * len(victims)
    assert 0 not in codes, both.output()
    with Processes(config, folder, count=2) as both:
        assert both.wait() == [0, 0], both.output()


def curve(folder: Path) -> list[tuple[float, ...]]:
    """Return the metrics of training and evaluation that do not depend on time, row by row."""
    keys = ("step", "tokens", "loss", "grad_norm", "eval_loss", "score")
    rows = read_rows(folder / "metrics.jsonl")
    return [tuple(row[key] for key in keys if row.get(key) is not None) for row in rows]


def assert_close(got: Path, want: Path, rtol: float) -> None:
    """Assert equal curves and models of two runs, up to floating-point summation order."""
    for a, b in zip(curve(got), curve(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol)
    params = (jax.tree.leaves(convert.load(run / "export").params) for run in (got, want))
    for a, b in zip(*params, strict=True):
        # Gradients around zero are noise, of which Adam makes steps of full size.
        np.testing.assert_allclose(a, b, atol=max(4e-3 * np.abs(b).max(), 1e-4))


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]

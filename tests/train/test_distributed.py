"""Many processes as one program: how they are told of each other, and that they train alike."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import corpus
import numpy as np
import pytest

from modernbert_jax import UserError, cli
from modernbert_jax.train import distributed
from modernbert_jax.train.config import to_json
from modernbert_jax.train.distributed import Launch
from modernbert_jax.train.metrics import read_rows


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"coordinator": "host:1"}, "belong together"),
        ({"processes": 2, "process": 0}, "belong together"),
        ({"coordinator": "host", "processes": 2, "process": 0}, "must be host:port"),
        ({"coordinator": "host:1", "processes": 2, "process": 2}, "count from 0"),
    ],
)
def test_options_that_cannot_be(given, said):
    with pytest.raises(UserError, match=said):
        Launch(**given)


def test_the_command_refuses_them_in_a_line(capsys):
    assert cli.main(["pretrain", "nano", "--coordinator", "host:1"]) == 2
    assert "belong together" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, None),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, "Slurm"),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU pod"),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
    ],
)
def test_launchers_are_known_by_their_environment(monkeypatch, environment, name):
    for variable in ("SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(distributed.os.path, "exists", lambda path: False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert distributed.launcher() == name


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    data = corpus.prepared(tmp_path)
    config = corpus.run_config(tmp_path, data)
    stage = dataclasses.replace(
        config.stages[0],
        rows=8,
        microbatch_rows=4,
        batch_warmup_rows=0,
        batch_warmup_tokens=0,
        warmup_tokens=0,
        tokens=6 * 8 * 64,
    )
    config = dataclasses.replace(config, stages=(stage,), log_every=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def start(name: str, devices: int, *options: str) -> subprocess.Popen:
        made = dataclasses.replace(config, output=str(tmp_path / name))
        (tmp_path / f"{name}.json").write_text(json.dumps(to_json(made)))
        flags = f"--xla_force_host_platform_device_count={devices}"
        program = "import sys; from modernbert_jax.cli import main; sys.exit(main())"
        return subprocess.Popen(
            [sys.executable, "-c", program, "pretrain", tmp_path / f"{name}.json", *options],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        )

    assert start("one", 1).wait(900) == 0
    both = ("--coordinator", f"127.0.0.1:{port}", "--processes", "2", "--process")
    started = [start("two", 2, *both, str(i)) for i in range(2)]
    assert [process.wait(900) for process in started] == [0, 0]
    assert (tmp_path / "two" / "export" / "model.safetensors").is_file()
    for a, b in zip(*(curve(tmp_path / name) for name in ("two", "one")), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5)


def curve(folder: Path) -> list[tuple[float, ...]]:
    keys = ("step", "tokens", "loss", "grad_norm", "eval_loss")
    rows = read_rows(folder / "metrics.jsonl")
    return [tuple(row[key] for key in keys if key in row) for row in rows]

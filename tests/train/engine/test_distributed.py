"""Several processes as one program: how they find each other, and that they train as one."""

import dataclasses
import signal
from pathlib import Path

import corpus
import numpy as np
import pytest
from processes import Processes, curve, kill_and_resume

from modernbert_jax import UserError, cli, convert
from modernbert_jax.sharding import MeshShape
from modernbert_jax.train.engine import distributed
from modernbert_jax.train.engine.distributed import Launch


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"coordinator": "host:1"}, "belong together"),
        ({"processes": 2, "process": 0}, "belong together"),
        ({"coordinator": "host", "processes": 2, "process": 0}, "must be host:port"),
        ({"coordinator": "host:1", "processes": 2, "process": 2}, "count from 0"),
        ({"cpu_devices": 0}, "--cpu-devices is 0; it must be 1 or more"),
    ],
)
def test_invalid_options_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        Launch(**options)


def test_the_command_refuses_them_with_one_line(capsys):
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
def test_launchers_are_recognised_by_their_environment(monkeypatch, environment, name):
    for variable in ("SLURM_PROCID", "SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("TPU_WORKER_HOSTNAMES", "MEGASCALE_COORDINATOR_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(distributed.os.path, "exists", lambda path: False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert distributed.launcher() == name


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder of all runs."""
    return tmp_path_factory.mktemp("runs")


def small(folder: Path, steps: int, **options):
    """A model with one layer, saved at every fourth step and evaluated at every twelfth."""
    config = corpus.run_config(
        folder, corpus.prepared(folder, **options), save_every=4, eval_every=12
    )
    config = dataclasses.replace(
        config, model=dataclasses.replace(config.model, num_hidden_layers=1)
    )
    return corpus.even_config(config, rows=8, steps=steps)


@pytest.fixture(scope="module")
def config(place):
    return small(place, steps=24)


def test_asking_one_process_to_stop_stops_both_at_the_same_step(place):
    folder = place / "asked"
    config = small(place / "unevaluated", steps=400, validation=0.0)
    with Processes(config, folder, count=2) as both:
        both.reach(5)
        both.all[1].send_signal(signal.SIGTERM)
        assert both.wait() == [0, 0], both.output()
    assert "stopped, checkpoint saved; run the same" in both.logs[0].read_text()
    assert "stopped" not in both.logs[1].read_text()
    assert 5 <= both.reached() < 400
    assert max(int(p.name) for p in (folder / "checkpoints").iterdir()) == both.reached()


@pytest.fixture(scope="module")
def whole(place, config) -> Path:
    """The run of two processes that was never stopped."""
    with Processes(config, place / "whole", count=2) as both:
        assert both.wait() == [0, 0], both.output()
    return place / "whole"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 4])
def test_processes_train_as_one(place, config, whole, count):
    with Processes(config, place / f"of-{count}", count=count) as some:
        assert some.wait() == [0] * count, some.output()
    close(place / f"of-{count}", whole)


@pytest.mark.slow
@pytest.mark.parametrize("victims", [(0,), (1,), (0, 1)])
def test_killed_processes_end_and_resume_bit_for_bit(place, config, whole, victims):
    """The remaining processes end by themselves with an error; none hangs."""
    folder = place / f"killed-{len(victims)}-{victims[0]}"
    kill_and_resume(config, folder, 9, victims)
    assert curve(folder) == curve(whole)
    assert convert.verify(folder / "export", whole / "export", tolerance=0.0).equal


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after", "mesh"),
    [(2, 1, {}), (1, 2, {}), (2, 4, {}), (4, 2, {}), (2, 2, {"fsdp": 2, "data": 1})],
)
def test_other_process_counts_and_meshes_resume(place, config, whole, before, after, mesh):
    folder = place / f"{before}-to-{after}-{len(mesh)}"
    with Processes(config, folder, count=before) as first:
        first.reach(9)
        first.all[-1].send_signal(signal.SIGTERM)
        assert first.wait() == [0] * before, first.output()
    stopped = first.reached()
    assert 9 <= stopped < 24
    config = dataclasses.replace(config, mesh=MeshShape(**mesh))
    with Processes(config, folder, count=after) as second:
        assert second.wait() == [0] * after, second.output()
    assert f"resuming at step {stopped}" in second.output()
    close(folder, whole)


def close(got: Path, want: Path) -> None:
    """Assert equal curves, up to floating-point summation order."""
    for a, b in zip(curve(got), curve(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5)

"""Runs in processes of their own: on meshes, killed and resumed."""

import json
import subprocess
from pathlib import Path

import processes
import pytest
import retrieval_runs

from modernbert_jax import convert
from modernbert_jax.train.engine.metrics import read_rows

pytestmark = pytest.mark.slow

MESHES = {"two": (2, {"data": 2})}

SCRIPT = Path(__file__).with_name("on_mesh.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of all runs, each on a single device and never stopped."""
    folder = tmp_path_factory.mktemp("retrieval")
    processes.train_on(1, {f"{run}-single": {} for run in retrieval_runs.RUNS}, SCRIPT, folder)
    return folder


def test_runs_do_not_depend_on_the_mesh(folder):
    """Negatives are those of the whole batch on any mesh, in several microbatches."""
    for name, (devices, shape) in MESHES.items():
        meshes = {f"{run}-{name}": shape for run in retrieval_runs.RUNS}
        processes.train_on(devices, meshes, SCRIPT, folder)
        for run in retrieval_runs.RUNS:
            rows = read_rows(folder / f"{run}-single" / "metrics.jsonl")
            assert max(row.get("microbatches", 0) for row in rows) > 1
            processes.assert_close(folder / f"{run}-{name}", folder / f"{run}-single", rtol=1e-3)


@pytest.mark.parametrize("run", retrieval_runs.RUNS)
def test_killed_runs_resume_bit_for_bit(folder, run):
    single, killed = folder / f"{run}-single", folder / f"{run}-killed"
    with pytest.raises(subprocess.CalledProcessError):
        processes.train_on(1, {killed.name: {"dies": 6}}, SCRIPT, folder)
    assert not (killed / "result.json").exists()
    guide = {path: path.stat().st_mtime_ns for path in killed.glob("guide/**/*.npy")}
    assert len(guide) == (2 if run == "guided" else 0)
    processes.train_on(1, {killed.name: {}}, SCRIPT, folder)
    assert all(path.stat().st_mtime_ns == before for path, before in guide.items())
    assert processes.curve(killed) == processes.curve(single)
    results = [json.loads((each / "result.json").read_text()) for each in (killed, single)]
    for name in ("best", "last", "exported"):
        assert results[0][name] == results[1][name]
    assert convert.verify(killed / "export", single / "export", tolerance=0.0).equal

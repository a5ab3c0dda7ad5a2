"""Runs in processes of their own: on meshes, killed and resumed."""

import subprocess
from pathlib import Path

import jax
import numpy as np
import processes
import pytest

from modernbert_jax import convert
from modernbert_jax.train.engine.metrics import read_rows

MESHES = {"two": (2, {"data": 2})}

SCRIPT = Path(__file__).with_name("embedding_runs.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of all runs, with one on a single device that was never stopped."""
    folder = tmp_path_factory.mktemp("embedding")
    processes.train_on(1, {"single": {}}, SCRIPT, folder)
    return folder


@pytest.mark.slow
def test_the_run_does_not_depend_on_the_mesh(folder):
    """Negatives are those of the whole batch on any mesh, in several microbatches."""
    for name, (devices, shape) in MESHES.items():
        processes.train_on(devices, {name: shape}, SCRIPT, folder)
        rows, wanted = (read_rows(folder / x / "metrics.jsonl") for x in (name, "single"))
        assert len(rows) == len(wanted)
        assert max(row.get("microbatches", 0) for row in wanted) > 1
        for a, b in zip(rows, wanted, strict=True):
            assert (a["step"], a["tokens"]) == (b["step"], b["tokens"])
            for key in ("loss", "grad_norm", "eval_loss"):
                if key in a:
                    np.testing.assert_allclose(a[key], b[key], rtol=1e-3, err_msg=f"{name} {key}")
        params = (convert.load(folder / x / "export").params for x in (name, "single"))
        for a, b in zip(*map(jax.tree.leaves, params), strict=True):
            np.testing.assert_allclose(a, b, atol=max(4e-3 * np.abs(b).max(), 1e-4))


@pytest.mark.slow
def test_killed_it_resumes_bit_for_bit(folder):
    with pytest.raises(subprocess.CalledProcessError):
        processes.train_on(1, {"killed": {"dies": 8}}, SCRIPT, folder)
    assert not (folder / "killed" / "result.json").exists()
    processes.train_on(1, {"killed": {}}, SCRIPT, folder)
    assert processes.curve(folder / "killed") == processes.curve(folder / "single")
    params = (convert.load(folder / x / "export").params for x in ("killed", "single"))
    for a, b in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_array_equal(a, b)

"""Pretraining on meshes: curve and model equal those of a single device."""

from pathlib import Path

import jax
import numpy as np
import processes
import pytest

from modernbert_jax import convert
from modernbert_jax.train.engine.metrics import read_rows

MESHES = {
    "tensor": {"data": 2, "fsdp": 2, "tensor": 2},
    "context": {"data": 2, "context": 4},
}
MORE_MESHES = {
    "rows": {"data": 8},
    "fsdp": {"data": 2, "fsdp": 4},
    "all": {"data": 1, "fsdp": 2, "context": 2, "tensor": 2},
}

SCRIPT = Path(__file__).with_name("on_mesh.py")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of all runs, with that of one device."""
    folder = tmp_path_factory.mktemp("meshes")
    processes.train_on(1, {"single": {}}, SCRIPT, folder)
    return folder


def test_the_run_does_not_depend_on_the_mesh(folder):
    processes.train_on(8, MESHES, SCRIPT, folder)
    for name in MESHES:
        same_run(folder / name, folder / "single")


@pytest.mark.slow
def test_the_run_does_not_depend_on_more_meshes(folder):
    processes.train_on(8, MORE_MESHES, SCRIPT, folder)
    for name in MORE_MESHES:
        same_run(folder / name, folder / "single")


def same_run(got: Path, want: Path) -> None:
    """Compare metrics and exports, up to floating-point summation order."""
    steps, wanted_steps = (rows(folder, "loss") for folder in (got, want))
    assert len(steps) == len(wanted_steps) == 6
    for a, b in zip(steps, wanted_steps, strict=True):
        for key in ("step", "tokens", "batch_rows", "packing_efficiency"):
            assert a[key] == b[key], (got.name, key)
        for key in ("loss", "grad_norm", "param_norm", "masked_accuracy"):
            np.testing.assert_allclose(a[key], b[key], rtol=2e-5, atol=1e-7, err_msg=key)
    losses = ([r["eval_loss"] for r in rows(folder, "eval_loss")] for folder in (got, want))
    np.testing.assert_allclose(*losses, rtol=2e-5)
    params = (jax.tree.leaves(convert.load(f / "export").params) for f in (got, want))
    for a, b in zip(*params, strict=True):
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        np.testing.assert_allclose(a, b, atol=2e-3 * np.abs(b).max())


def rows(folder: Path, key: str) -> list[dict]:
    return [row for row in read_rows(folder / "metrics.jsonl") if key in row]

"""Fine-tuning on meshes: curve, scores and model equal those of a single device."""

from pathlib import Path

import jax
import numpy as np
import processes
import pytest

from modernbert_jax import convert
from modernbert_jax.train.engine.metrics import read_rows

MESHES = {"two": (2, {"data": 2})}
MORE_MESHES = {
    "fsdp": (4, {"data": 2, "fsdp": 2}),
    "context": (4, {"data": 1, "fsdp": 1, "context": 2, "tensor": 2}),
    "eight": (8, {"data": 2, "fsdp": 2, "tensor": 2}),
}

SCRIPT = Path(__file__).with_name("on_mesh.py")


def train(folder: Path, meshes: dict) -> None:
    for devices in sorted({n for n, _ in meshes.values()}):
        chosen = {name: shape for name, (n, shape) in meshes.items() if n == devices}
        processes.train_on(devices, chosen, SCRIPT, folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The folder of all runs, with that of one device."""
    folder = tmp_path_factory.mktemp("meshes")
    train(folder, {"single": (1, {})})
    return folder


def test_the_run_does_not_depend_on_the_mesh(folder):
    train(folder, MESHES)
    for name in MESHES:
        same_run(folder / name, folder / "single")


@pytest.mark.slow
def test_the_run_does_not_depend_on_more_meshes(folder):
    train(folder, MORE_MESHES)
    for name in MORE_MESHES:
        same_run(folder / name, folder / "single")


def same_run(got: Path, want: Path) -> None:
    """Compare metrics and exports, up to floating-point summation order."""
    steps, wanted = (read_rows(f / "metrics.jsonl") for f in (got, want))
    assert len(steps) == len(wanted) == 10
    for a, b in zip(steps, wanted, strict=True):
        assert (a["step"], a["tokens"]) == (b["step"], b["tokens"])
        for key in ("loss", "grad_norm", "eval_loss"):
            if key in a:
                np.testing.assert_allclose(a[key], b[key], rtol=1e-4, err_msg=key)
    params = (jax.tree.leaves(convert.load(f / "export").params) for f in (got, want))
    for a, b in zip(*params, strict=True):
        # The classifier's bias is common to all choices, so its gradient is noise around zero.
        np.testing.assert_allclose(a, b, atol=max(4e-3 * np.abs(b).max(), 1e-4))

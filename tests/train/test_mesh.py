"""Runs on meshes: the curve is that of one device, whatever the mesh."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from modernbert_jax import convert
from modernbert_jax.train.metrics import read_rows

MESHES = {
    "rows": {"data": 8},
    "fsdp": {"data": 2, "fsdp": 4},
    "tensor": {"data": 2, "fsdp": 2, "tensor": 2},
    "context": {"data": 2, "context": 4},
}


def train(folder: Path, devices: int, meshes: dict) -> None:
    (folder / "meshes.json").write_text(json.dumps(meshes))
    flags = f"--xla_force_host_platform_device_count={devices}"
    subprocess.run(
        [sys.executable, Path(__file__).with_name("on_mesh.py"), folder],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        check=True,
        timeout=900,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    """The folder of a run on one device, and of one for each mesh."""
    folder = tmp_path_factory.mktemp("meshes")
    train(folder, 1, {"single": {}})
    train(folder, 8, MESHES)
    return {name: folder / name for name in ("single", *MESHES)}


def steps(folder: Path) -> list[dict]:
    return [row for row in read_rows(folder / "metrics.jsonl") if "loss" in row]


@pytest.mark.parametrize("name", MESHES)
def test_the_curve_does_not_depend_on_the_mesh(runs, name):
    want, got = steps(runs["single"]), steps(runs[name])
    assert len(got) == len(want) == 6
    for a, b in zip(got, want, strict=True):
        for key in ("step", "tokens", "batch_rows", "packing_efficiency"):
            assert a[key] == b[key]
        for key in ("loss", "grad_norm", "param_norm", "masked_accuracy"):
            np.testing.assert_allclose(a[key], b[key], rtol=2e-5, atol=1e-7, err_msg=key)
    evaluations = [
        [r["eval_loss"] for r in read_rows(runs[which] / "metrics.jsonl") if "eval_loss" in r]
        for which in ("single", name)
    ]
    np.testing.assert_allclose(*evaluations, rtol=2e-5)


@pytest.mark.parametrize("name", MESHES)
def test_the_export_does_not_depend_on_the_mesh(runs, name):
    want, got = (convert.load(runs[which] / "export").params for which in ("single", name))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        b = np.asarray(b, np.float32)
        np.testing.assert_allclose(np.asarray(a), b, atol=2e-3 * np.abs(b).max())

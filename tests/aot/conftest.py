"""Compiling for accelerators that are not there: collected by `make aot` alone.

There, with MODERNBERT_JAX_AOT=1, a compiler that is missing is an error and nothing is skipped.
TPUs are named by the topology of a slice of four chips, GPUs by a description in `train/targets`.
"""

import os
from pathlib import Path

import pytest

TARGETS = Path(__file__).parents[2] / "train" / "plan" / "targets"

if os.environ.get("MODERNBERT_JAX_AOT") == "1":
    # No cloud metadata to ask, several processes on one libtpu, and no driver of CUDA to look for.
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    }
    import jax_cuda12_plugin  # noqa: F401
    import libtpu  # noqa: F401
else:
    collect_ignore_glob = ["test_*.py"]


def pytest_terminal_summary(terminalreporter):
    """Print what tests have counted, in any of their processes."""
    reports = (report for of in ("passed", "failed") for report in terminalreporter.getreports(of))
    counted = [
        line
        for report in sorted(reports, key=lambda report: report.nodeid)
        for name, lines in report.user_properties
        for line in (lines if name == "counted" else ())
    ]
    if counted:
        terminalreporter.section("counted in compiled programs")
        terminalreporter.write("\n".join([*counted, ""]))


@pytest.fixture(scope="session")
def devices():
    """All devices of an absent accelerator, by the name of its target."""
    from jax.experimental import topologies

    known = {}

    def get(target: str):
        if target not in known:
            options = {"platform": "tpu", "topology_name": target}
            if ":" not in target:
                text = (TARGETS / f"{target}.txtpb").read_text()
                options |= {"platform": "cuda", "target_config": text, "topology": "1x1x1"}
            known[target] = topologies.get_topology_desc(**options).devices
        return known[target]

    return get


@pytest.fixture(scope="session")
def device(devices):
    """The first device of an absent accelerator, by the name of its target."""
    return lambda target: devices(target)[0]


@pytest.fixture(scope="session")
def on_mesh(device):
    """A context in which the program being traced is for an absent accelerator."""
    import jax
    import numpy as np

    axes = ("data", "fsdp", "tensor")

    def mesh(target: str):
        alone = np.array([device(target)]).reshape(1, 1, 1)
        auto = (jax.sharding.AxisType.Auto,) * len(axes)
        return jax.set_mesh(jax.sharding.Mesh(alone, axes, axis_types=auto))

    return mesh

"""Every program of `bench device` compiles for the devices that it is meant for, at real sizes."""

import pytest

from modernbert_jax.train.bench.device import cases, timing, workloads
from modernbert_jax.train.bench.device.cases import Layer
from modernbert_jax.train.bench.device.parts import (
    attention_checks,
    attention_tiles,
    attention_times,
    loss_checks,
    maxsim_times,
)
from modernbert_jax.train.bench.device.scale import Scale

SCALES = {
    "h100": Scale(platform="gpu", device_kind="NVIDIA H100 80GB HBM3", memory=78 * 10**9),
    "v5e:2x2": Scale(platform="tpu", device_kind="TPU v5 lite", memory=16 * 10**9),
}


def checks(scale, length, dtype):
    yield "oracle", attention_checks.oracle_program(length, dtype, scale)
    yield from attention_checks.programs(length, dtype, scale)


def losses(scale):
    for dtype in scale.dtypes:
        yield from loss_checks.loss_programs(dtype, scale)
    yield from loss_checks.model_programs(scale)


def tiles(scale):
    for kind in cases.WINDOWS:
        yield from attention_tiles.programs(Layer(kind, 8192, "bfloat16"), scale)


def compiled(on_mesh, target, programs) -> int:
    """Compile programs and return their number; fail with all that the compiler refused."""
    with on_mesh(target):
        results = list(timing.compile_all(programs))
    refused = {str(key): str(r)[:300] for key, r in results if isinstance(r, Exception)}
    assert not refused
    return len(results)


# Kernels take minutes to compile for TPU; float32 and long rows are compiled in other tests.
@pytest.mark.parametrize(
    ("target", "length", "dtype"),
    [("h100", n, dtype) for n in (1024, 8192) for dtype in ("bfloat16", "float32")]
    + [("v5e:2x2", 1024, "bfloat16")],
)
def test_checks(on_mesh, target, length, dtype):
    assert compiled(on_mesh, target, checks(SCALES[target], length, dtype)) > 5


@pytest.mark.parametrize("length", [1024, 8192])
def test_times(on_mesh, length):
    """Only our kernels: jax's own attention needs cuDNN on the device."""
    programs = attention_times.programs(length, SCALES["h100"])
    ours = ((key, p) for key, p in programs if key.name not in attention_times.PEERS)
    assert compiled(on_mesh, "h100", ours) == 14


def test_maxsim(on_mesh):
    """The einsum of the large batch included: the compiler does not ask for the device's memory."""
    scale = SCALES["h100"]
    programs = [
        p for batch in maxsim_times.batches(scale) for p in maxsim_times.programs(batch, scale)
    ]
    assert compiled(on_mesh, "h100", programs) == 6


def test_tiles(on_mesh):
    assert compiled(on_mesh, "h100", tiles(SCALES["h100"])) == 48


@pytest.mark.parametrize("target", SCALES)
def test_losses_and_the_model(on_mesh, target):
    assert compiled(on_mesh, target, losses(SCALES[target])) == 7


def test_a_training_step_fits(device):
    work = workloads.workload("base 1024", SCALES["h100"])
    step = workloads.compile_for(work, work.config.mesh.make([device("h100")]))
    assert step.memory_analysis().temp_size_in_bytes < SCALES["h100"].memory

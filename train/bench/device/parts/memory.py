"""Peak memory of the training steps as `plan` predicts it: compiled for the absent device."""

from collections.abc import Iterator
from functools import partial

import jax

from modernbert_jax.errors import UserError
from modernbert_jax.train.plan import program, topology

from .. import workloads
from ..registry import register
from ..results import Number, Numbers, Result, attempt
from ..scale import Scale
from ..workloads import Workload

TOPOLOGIES = {
    "NVIDIA A100": "a100:1",
    "NVIDIA L4": "l4:1",
    "NVIDIA H100": "h100:1",
    "NVIDIA H200": "h100:1",  # the same chip with more memory
    "NVIDIA B200": "b200:1",
    "TPU v4": "v4:1x1x1",
    "TPU v5 lite": "v5e:1x1",
    "TPU v5": "v5p:1x1x1",
    "TPU v6 lite": "v6e:1x1",
    "TPU7x": "tpu7x:1x1x1",
}
"""Topology of `plan` by the beginning of jax's device kind."""


@register("memory", group="memory", order=40, seconds=240, background=True)
def memory(scale: Scale) -> Iterator[Result]:
    """The prediction for each workload; it takes the CPU alone."""
    with topology.absent_devices():
        for work in workloads.workloads(scale):
            yield attempt(work.name, work.labels, partial(predict, work, scale))


def predict(work: Workload, scale: Scale) -> Numbers:
    """Gigabytes at the peak. Raises `UserError` where `plan` does not know the device."""
    config = work.config
    choice = program.Variant(work.remat, work.rows)
    mesh = config.mesh.make([_device(scale)])
    compiled = program.compile_step(config, config.stages[0], choice, mesh)
    return {"predicted": Number(compiled.peak / 1e9, "GB")}


def _device(scale: Scale) -> jax.Device:
    if scale.tiny:
        return jax.devices("cpu")[0]
    known = [kind for kind in TOPOLOGIES if scale.device_kind.startswith(kind)]
    if not known:
        raise UserError(f"plan knows no {scale.device_kind}")
    return topology.topology(TOPOLOGIES[max(known, key=len)]).devices[0]

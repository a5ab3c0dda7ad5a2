"""Machines that are not here: their devices, for compiling, and what a device has."""

import dataclasses
import math
import os
import re
from pathlib import Path

import jax

from modernbert_jax.errors import UserError, did_you_mean

TPUS = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32, "tpu7x": 96}
"""TPU families, with GiB of memory for each device that jax shows."""

GPUS = {"a100": 80, "l4": 24, "h100": 80, "b200": 180}
"""Descriptions in `targets`, with the memory of a GPU as its maker sells it, in GB."""

USABLE = 0.94
"""Share of a device's memory that a program gets; the rest holds the runtime and its buffers."""


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for; none of them need exist."""

    name: str
    devices: tuple[jax.Device, ...]
    memory: int
    """Bytes that a program may use on each."""


def topology(name: str) -> Topology:
    """The devices of a TPU slice ("v5e:16x16") or of GPUs ("h100:8", "h100:4x8" for 4 hosts).

    TPUs need the `tpu` extra's compiler and GPUs jax's CUDA plugin, but no device.

    Raises:
        UserError: no such machine, or its compiler is not installed.
    """
    family, _, shape = name.partition(":")
    if family not in TPUS and family not in GPUS:
        raise UserError(f"topology {name!r}: {did_you_mean(family, [*TPUS, *GPUS])}")
    if not re.fullmatch(r"\d+(x\d+){0,2}", shape):
        example = "v5e:16x16" if family in TPUS else "h100:8"
        raise UserError(f"topology {name!r}: a shape must follow the colon, as in {example}")
    options = _tpu(name) if family in TPUS else _gpu(family, shape)
    try:
        from jax.experimental import topologies

        devices = topologies.get_topology_desc(**options).devices
    except Exception as error:
        line = str(error).strip().splitlines()[0][:200]
        extra = "tpu" if family in TPUS else "cuda12"
        raise UserError(
            f"topology {name!r} cannot be compiled for: {line}; is it a real shape, and is the"
            f" {extra!r} extra installed?"
        ) from error
    memory = TPUS[family] * 2**30 if family in TPUS else GPUS[family] * 10**9
    return Topology(name, tuple(devices), int(memory * USABLE))


def prepare_environment() -> None:
    """Lets the compilers of absent devices load: no metadata server, no driver, no lock.

    Must come before the first use of jax.
    """
    for variable, value in {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    }.items():
        os.environ.setdefault(variable, value)


def _tpu(name: str) -> dict:
    family, shape = name.split(":")
    if family in ("v4", "v5p", "tpu7x") and shape.count("x") < 2:
        shape += "x1" * (2 - shape.count("x"))
    return {"platform": "tpu", "topology_name": f"{family}:{shape}"}


def _gpu(family: str, shape: str) -> dict:
    sizes = [int(n) for n in shape.split("x")]
    if len(sizes) > 2 or math.prod(sizes) < 1:
        raise UserError(f"topology '{family}:{shape}': GPUs are given as 8, or as hosts x GPUs")
    hosts, each = (1, *sizes)[-2:]
    text = (Path(__file__).parent / "targets" / f"{family}.txtpb").read_text()
    return {
        "platform": "cuda",
        "topology_name": family,
        "target_config": text,
        "topology": f"1x{hosts}x{each}",
    }

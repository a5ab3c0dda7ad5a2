"""Absent machines: their devices for compiling, and the memory of each device.

TPUs come from libtpu, which knows every slice by the shape of its grid of chips. NVIDIA GPUs come
from jax's CUDA plugin, which takes a description of the card (`targets/`) and a number.
"""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import SingleDeviceSharding

from modernbert_jax.errors import UserError, did_you_mean

MOST_CHIPS = 512
"""Devices of the largest machine to plan for; compiling takes longer with more."""


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of TPU."""

    memory: int
    """Memory of each device that jax shows, in GiB."""
    cores: int = 1
    """Cores per chip, which names such as v5p-128 count."""
    dimensions: int = 2
    """Dimensions of the grid of chips."""
    options: tuple[tuple[str, str], ...] = ()
    """Options of libtpu for devices as jax shows them on the machine itself."""


TPUS = {
    "v4": Family(memory=32, cores=2, dimensions=3, options=(("chip_config_name", "megacore"),)),
    "v5e": Family(memory=16),
    "v5p": Family(memory=95, cores=2, dimensions=3),
    "v6e": Family(memory=32),
    "tpu7x": Family(memory=96, cores=2, dimensions=3),
}

GPUS = ("a100", "l4", "h100", "b200")
"""Cards described in `targets/`."""

TARGETS = Path(__file__).with_name("targets")

FRACTION = "XLA_PYTHON_CLIENT_MEM_FRACTION"
"""Environment variable with the share of a GPU's memory that jax takes for itself."""

DEFAULT_FRACTION = 0.75


@dataclasses.dataclass(frozen=True)
class Topology:
    """A machine to compile for, which need not exist."""

    name: str
    family: str
    devices: tuple[jax.Device, ...]
    memory: int
    """Bytes that a program may use on each device."""
    limit: str
    """Explanation of `memory`."""
    enforced: bool = False
    """Whether the compiler itself refuses programs that do not fit."""


def topology(name: str) -> Topology:
    """Describe a TPU slice or a machine with NVIDIA GPUs.

    Args:
        name: "v5e:16x16", the grid of chips; "v5e-256" and "v5p-128", as Google names slices (of
            v4, v5p and tpu7x it counts cores, two on a chip); "h100:8"; "h100:4x8", hosts x GPUs.

    Raises:
        UserError: there is no such machine, or its compiler is not installed.
    """
    family, colon, shape = name.partition(":")
    if not colon:
        family, _, shape = name.partition("-")
    if family not in TPUS and family not in GPUS:
        near = did_you_mean(family or name, [*TPUS, *GPUS])
        raise UserError(f"topology {name!r}: {near} (as in v5e:16x16, v5e-256 or h100:8)")
    if family in GPUS:
        return _gpus(name, family, shape)
    return _tpus(name, family, _sides(name, family, shape, named=not colon))


def grid(chips: int, dimensions: int) -> tuple[int, ...] | None:
    """The most even grid of a number of chips; None unless that is a power of two.

    Later sides are longer: 8 x 16, 4 x 4 x 8.
    """
    if chips < 1 or chips & (chips - 1):
        return None
    power, sides = chips.bit_length() - 1, []
    if dimensions == 3 and chips <= 4:  # one host's board is flat
        return (*(grid(chips, 2) or ()), 1)
    for left in range(dimensions, 0, -1):
        sides.append(power // left)
        power -= sides[-1]
    return tuple(2**side for side in sides)


@contextlib.contextmanager
def absent_devices() -> Iterator[None]:
    """Let compilers of absent devices load, without metadata server, driver, lock or backend.

    jax computes on the CPU in the block.
    """
    wanted = {
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
    }
    before = {variable: os.environ.get(variable) for variable in wanted}
    config: Any = jax.config  # creates its attributes dynamically
    platforms = config.jax_platforms
    os.environ |= wanted
    jax.config.update("jax_platforms", "cpu")
    try:
        yield
    finally:
        jax.config.update("jax_platforms", platforms)
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


def _sides(name: str, family: str, shape: str, named: bool) -> tuple[int, ...]:
    kind = TPUS[family]
    if named:
        chips = int(shape) // kind.cores if shape.isdecimal() else 0
        sides = grid(chips, kind.dimensions) or ()
    else:
        sides = _numbers(shape)
        sides += (1,) * (kind.dimensions - len(sides)) if sides else ()
    if not sides or math.prod(sides) < 1 or len(sides) > kind.dimensions:
        example = {2: "16x16", 3: "4x4x8"}[kind.dimensions]
        raise UserError(
            f"topology {name!r}: no such slice; give the grid of chips, as in {family}:{example}"
        )
    if math.prod(sides) > MOST_CHIPS:
        raise UserError(
            f"topology {name!r} has {math.prod(sides):,} chips; a plan is for {MOST_CHIPS} or fewer"
        )
    return sides


def _numbers(shape: str) -> tuple[int, ...]:
    """The numbers of "4x4x8"; empty for other text."""
    return tuple(map(int, shape.split("x"))) if re.fullmatch(r"\d+(x\d+)*", shape) else ()


def _tpus(name: str, family: str, sides: tuple[int, ...]) -> Topology:
    layout = f"{family}:{'x'.join(map(str, sides))}"
    options: dict[str, Any] = {"platform": "tpu", "topology_name": layout}
    options |= dict(TPUS[family].options)
    if math.prod(sides) == 1:
        options["chips_per_host_bounds"] = (1, 1, 1)
    devices = _devices(name, "tpu", options)
    memory = _available(devices[0]) or int(TPUS[family].memory * 0.97 * 2**30)
    return Topology(layout, family, devices, memory, "the TPU compiler's own limit", enforced=True)


def _gpus(name: str, family: str, shape: str) -> Topology:
    sizes = _numbers(shape)
    if len(sizes) not in (1, 2) or not 1 <= math.prod(sizes) <= MOST_CHIPS:
        raise UserError(
            f"topology {name!r}: give a number of GPUs, as in {family}:8, or hosts x GPUs"
        )
    hosts, each = (1, *sizes)[-2:]
    text = (TARGETS / f"{family}.txtpb").read_text()
    options = {
        "platform": "cuda",
        "topology_name": family,
        "target_config": text,
        "topology": f"1x{hosts}x{each}",
    }
    devices = _devices(name, "cuda12", options)
    share = _fraction()
    memory = int(re.findall(r"device_memory_size: (\d+)", text)[0])
    source = f"as {FRACTION} says"
    if FRACTION not in os.environ:
        source = f"jax's default; {FRACTION} changes it"
    limit = f"{share:.0%} of {memory / 1e9:.0f} GB, {source}"
    layout = f"{family}:{hosts}x{each}" if hosts > 1 else f"{family}:{each}"
    return Topology(layout, family, devices, int(memory * share), limit)


def _fraction() -> float:
    value = os.environ.get(FRACTION, str(DEFAULT_FRACTION))
    try:
        share = float(value)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UserError(f"{FRACTION} is {value!r}; it must be above 0 and up to 1")
    return share


def _devices(name: str, extra: str, options: dict[str, Any]) -> tuple[jax.Device, ...]:
    from jax.experimental import topologies

    try:
        return tuple(topologies.get_topology_desc(**options).devices)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        if "INVALID_ARGUMENT" in reason:
            raise UserError(f"topology {name!r}: no such machine ({reason})") from error
        raise UserError(
            f"topology {name!r} needs the {extra!r} extra: pip install 'modernbert-jax[{extra}]'"
            f" ({reason})"
        ) from error


def _available(device: jax.Device) -> int | None:
    """Bytes that the TPU compiler allows a program, from its refusal of one; None if unknown."""
    far_too_large = jax.ShapeDtypeStruct(
        (2**42,), jnp.float32, sharding=SingleDeviceSharding(device)
    )
    try:
        jax.jit(lambda x: (x * 2).sum()).lower(far_too_large).compile()
    except Exception as error:
        match = re.search(r"available HBM \(([\d.]+)G\)", str(error))
        return int(float(match[1]) * 2**30) if match else None
    return None

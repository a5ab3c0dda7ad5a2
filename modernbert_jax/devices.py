"""The devices of this process: all accelerators, or all cores of the CPU.

jax sees a CPU as one device, and much of what it computes there uses a single core. Exposed as one
virtual device per core, each computes rows of its own.
"""

import os
from typing import Literal

import jax
from jax.sharding import Mesh

from modernbert_jax.errors import UserError
from modernbert_jax.sharding import MeshShape

Cores = int | Literal["all"]


def available_cores() -> int:
    """Number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def expose_cores(cores: Cores = "all") -> None:
    """Expose the CPU as one virtual device per core; accelerators are left as they are.

    It changes `jax.devices()` for the whole process, and must come before jax is first used.

    Args:
        cores: number of virtual devices; "all" is one for each available core.

    Raises:
        UserError: a number below 1, or jax already runs with other CPU devices.
    """
    count = available_cores() if cores == "all" else cores
    if not isinstance(count, int) or count < 1:
        raise UserError(f"cores is {cores!r}; it must be 1 or more, or 'all'")
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # jax is running
        present = jax.local_devices()
        if present[0].platform == "cpu" and len(present) != count:
            raise UserError(
                f"cores is {cores!r}, but jax already runs with {len(present)} CPU devices; set"
                " cores before the first jax computation"
            ) from None


def local_mesh() -> Mesh:
    """A mesh over all devices of this process, which divide the rows of a batch among them."""
    return MeshShape().make(jax.local_devices())

"""Several processes as one program: launchers, synchronisation and gathering."""

import dataclasses
import os
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.errors import UserError
from modernbert_jax.io.host_memory import keep_freed_on_cpu


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """How this process joins the others; not part of a run, because it differs in each."""

    coordinator: str = ""
    """host:port of process 0, for machines that no launcher describes."""
    processes: int = 0
    """How many there are, with `coordinator`."""
    process: int = -1
    """Which one this is, from 0, with `coordinator`."""
    cpu_devices: int = 1
    """Devices that a CPU poses as, where there is no accelerator."""

    def __post_init__(self):
        if self.cpu_devices < 1:
            raise UserError(f"--cpu-devices is {self.cpu_devices}; it must be 1 or more")
        given = (bool(self.coordinator), self.processes > 0, self.process >= 0)
        if any(given) and not all(given):
            raise UserError("--coordinator, --processes and --process belong together; pass all")
        if self.coordinator and not re.fullmatch(r".+:\d+", self.coordinator):
            raise UserError(f"--coordinator is {self.coordinator!r}; it must be host:port")
        if self.coordinator and self.process >= self.processes:
            raise UserError(
                f"--process is {self.process} of --processes {self.processes}; they count from 0"
            )

    @classmethod
    def taken_from(cls, options: dict[str, Any]) -> "Launch":
        """Of a command's options those that say how it is launched; the others are left there."""
        return cls(**{field.name: options.pop(field.name) for field in dataclasses.fields(cls)})

    def join(self) -> None:
        """Joins the other processes if there are any, and makes the most of a CPU.

        Must come before the first use of jax.

        TPU pods, Slurm and Open MPI are recognised by their environment; elsewhere the three
        options are needed.
        """
        keep_freed_on_cpu()
        if self.cpu_devices > 1:
            jax.config.update("jax_num_cpu_devices", self.cpu_devices)
        if jax.distributed.is_initialized():
            return
        if self.coordinator:
            jax.distributed.initialize(self.coordinator, self.processes, self.process)
        elif launcher():
            jax.distributed.initialize()


def launcher() -> str | None:
    """Return the name of the launcher that the environment reveals; None for a single process."""
    env = os.environ
    if env.get("SLURM_PROCID") and int(env.get("SLURM_NTASKS", "1")) > 1:
        return "Slurm"
    if int(env.get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        return "Open MPI"
    if "," in env.get("TPU_WORKER_HOSTNAMES", "") or env.get("MEGASCALE_COORDINATOR_ADDRESS"):
        return "TPU pod"
    if env.get("TPU_SKIP_MDS_QUERY") is None and any(
        os.path.exists(path) for path in ("/dev/accel0", "/dev/vfio/0")
    ):
        return "TPU machine"
    return None


def together(what: str) -> None:
    """Wait until every process has reached this point.

    Args:
        what: the name of the point, the same in every process.
    """
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)


def whole(tree: Any, mesh: Mesh) -> Any:
    """Gather a tree of sharded arrays as numpy arrays in every process."""
    gathered = jax.jit(lambda x: x, out_shardings=NamedSharding(mesh, P()))(tree)
    return jax.tree.map(np.asarray, gathered)

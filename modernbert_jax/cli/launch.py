"""Processes that train as one, and the devices that each of them exposes."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable
from typing import Annotated

from modernbert_jax import ranges
from modernbert_jax.errors import UserError
from modernbert_jax.io.host_memory import has_only_cpu, keep_freed_on_cpu
from modernbert_jax.ranges import INT32, Natural, Range

from .options import as_option

Fits = Callable[[int, int], bool]
"""Whether a run can be divided among a number of devices, in all, of a number of processes."""

_NUMBER, _FLAG = "jax_num_cpu_devices", "xla_force_host_platform_device_count"
"""The option of jax, and the older flag of XLA, with the number of CPU devices."""

_PROCESSES = {"Slurm": "SLURM_NTASKS", "Open MPI": "OMPI_COMM_WORLD_SIZE"}
"""Environment variables with the number of processes, by launcher."""


def _always(devices: int, processes: int) -> bool:
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class CpuDevices:
    """Devices of a process without an accelerator."""

    cpu_devices: Natural = 0
    """Virtual devices that the CPU is exposed as, which share the rows of a batch. 0 takes one per
    core, or the largest number below that divides the rows and fits into memory."""

    def __post_init__(self):
        ranges.check(self, "--", as_option)

    def expose(self, fits: Fits = _always, processes: int = 1) -> None:
        """Expose the CPU as virtual devices, and keep the memory that they free.

        Call it before jax has devices. The automatic number does not override
        `JAX_NUM_CPU_DEVICES`, `XLA_FLAGS`, or the devices that a process has already.

        Args:
            fits: restricts the automatic number.
            processes: how many processes train as one.
        """
        import jax

        from modernbert_jax.devices import available_cores

        keep_freed_on_cpu()
        if self.cpu_devices:
            jax.config.update(_NUMBER, self.cpu_devices)
        elif has_only_cpu() and not _is_configured():
            smaller = (n for n in range(available_cores(), 1, -1) if fits(n * processes, processes))
            with contextlib.suppress(RuntimeError):  # jax has devices already
                jax.config.update(_NUMBER, next(smaller, 1))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch(CpuDevices):
    """Options with which this process joins the others. They differ, so no run stores them."""

    coordinator: str = ""
    """host:port of process 0. TPU pods, Slurm and Open MPI need none of these three options."""
    processes: Natural = 0
    """Number of processes; needs --coordinator."""
    process: Annotated[int, Range(-1, INT32, below=True)] = -1
    """Number of this process, from 0; needs --coordinator."""

    def __post_init__(self):
        super().__post_init__()
        passed = (bool(self.coordinator), self.processes > 0, self.process >= 0)
        if any(passed) and not all(passed):
            raise UserError("--coordinator, --processes and --process belong together; pass all")
        if self.coordinator and not re.fullmatch(r".+:\d+", self.coordinator):
            raise UserError(f"--coordinator is {self.coordinator!r}; it must be host:port")
        if self.coordinator and self.process >= self.processes:
            raise UserError(
                f"--process is {self.process} of --processes {self.processes}; they count from 0"
            )

    def join(self, fits: Fits = _always) -> None:
        """Join the other processes, if there are any, and expose this one's devices.

        Call it before jax has devices. TPU pods, Slurm and Open MPI are recognised by their
        environment; elsewhere the three options are needed.

        Args:
            fits: restricts the automatic number of virtual devices.
        """
        import jax

        started_by = launcher()
        launched = int(os.environ[_PROCESSES[started_by]]) if started_by in _PROCESSES else 1
        self.expose(fits, self.processes or launched)
        if jax.distributed.is_initialized():
            return
        if self.coordinator:
            jax.distributed.initialize(self.coordinator, self.processes, self.process)
        elif started_by:
            jax.distributed.initialize()


def launcher() -> str | None:
    """The launcher that started this process as one of several, or None."""
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


def _is_configured() -> bool:
    """Whether the environment or the program has set the number of CPU devices."""
    import jax

    return getattr(jax.config, _NUMBER) >= 0 or _FLAG in os.environ.get("XLA_FLAGS", "")

"""Limits of the automatic `--cpu-devices`: devices that a run can be divided among.

Every device holds rows of its own and, along the axes `data` and `context` of the mesh, a copy of
the weights. So the number is limited by the rows of a microbatch and by the machine's memory.
"""

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from modernbert_jax.errors import UserError

if TYPE_CHECKING:
    from modernbert_jax.sharding import MeshShape
    from modernbert_jax.train.finetune.config import FinetuneConfig
    from modernbert_jax.train.pretrain.config import PretrainConfig
    from modernbert_jax.train.retrieval.config import RetrievalConfig

    from .launch import Fits

_TRAINED = 4
"""Arrays in memory for every trained parameter: weight, gradient and two moments."""

_MEMORY_LIMIT = Path("/sys/fs/cgroup/memory.max")
"""Memory limit of a container, in bytes, or `max`."""


def for_pretraining(config: "PretrainConfig") -> "Fits":
    """Limit: every microbatch divides evenly, and all copies of the state fit into memory."""
    from modernbert_jax.sharding import AXES
    from modernbert_jax.train.pretrain.run import check_mesh

    state = 4 * _TRAINED * config.model.parameter_count()

    def fits(devices: int, processes: int) -> bool:
        try:
            sizes = dict(zip(AXES, config.mesh.sizes(devices), strict=True))
            for stage in config.stages:
                check_mesh(config.model, stage, sizes)
        except UserError:
            return False
        return _in_memory(state * copies(config.mesh, devices) / processes)

    return fits


def for_finetuning(config: "FinetuneConfig | RetrievalConfig") -> "Fits":
    """Limit: as many rows as a microbatch has when rows are long, and memory.

    Rows are packed to suit any number of devices. The axes `context` and `tensor` must suit the
    model, so the automatic number never grows them.
    """
    from modernbert_jax.inference.shapes import LONGEST_CHOSEN
    from modernbert_jax.train.finetune.config import FinetuneConfig

    labelled = config.task if isinstance(config, FinetuneConfig) else config
    rows = config.microbatch_tokens // max(LONGEST_CHOSEN, labelled.max_length)

    def fits(devices: int, processes: int) -> bool:
        try:
            data, fsdp, _, _ = config.mesh.sizes(devices)
        except UserError:
            return False
        return (
            -1 not in (config.mesh.context, config.mesh.tensor)
            and data * fsdp <= min(rows, config.batch_examples)
            and _in_memory(
                _TRAINED * weights_bytes(config.model) * copies(config.mesh, devices) / processes
            )
        )

    return fits


def for_inference(model: str, batch_tokens: int) -> "Fits":
    """Limit: as many rows as a batch has when rows are long, and memory."""
    from modernbert_jax.inference.shapes import LONGEST_CHOSEN

    def fits(devices: int, processes: int) -> bool:
        rows = batch_tokens // LONGEST_CHOSEN
        return devices <= rows and _in_memory(weights_bytes(model) * devices)

    return fits


def copies(mesh: "MeshShape", devices: int) -> int:
    """Copies of the weights on a mesh of this many devices."""
    data, _, context, _ = mesh.sizes(devices)
    return data * context


@functools.cache
def weights_bytes(model: str) -> int:
    """Size of a checkpoint's files, in bytes; a hub model is downloaded. Raises `UserError`."""
    from modernbert_jax.convert import locate

    path = locate(model)
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(file.stat().st_size for file in files)


def memory() -> int:
    """Memory that this process may use, in bytes."""
    size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if _MEMORY_LIMIT.is_file() and (limit := _MEMORY_LIMIT.read_text().strip()).isdecimal():
        return min(size, int(limit))
    return size


def _in_memory(size: float) -> bool:
    return size <= memory() / 2

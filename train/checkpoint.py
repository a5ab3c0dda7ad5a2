"""Checkpoints of a run: the whole training state and where it stood, with Orbax."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from .step import TrainState


class Checkpoints:
    """The checkpoints of a run, `<step>/` each. A context manager: leaving it waits for writing.

    A checkpoint appears under its name only when it is whole; what a killed run was writing is
    never read.
    """

    def __init__(
        self, folder: str | Path, keep: int, keep_every: int = 0, always: Sequence[int] = ()
    ):
        """Keeps the newest `keep`, those at multiples of `keep_every` steps, and those `always`."""
        policies = ocp.training.preservation_policies
        kept = [policies.LatestN(keep), policies.CustomSteps(tuple(always))]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        self._checkpointer = ocp.training.Checkpointer(
            str(Path(folder).absolute()), preservation_policy=policies.AnyPreservationPolicy(kept)
        )
        self._saved: int | None = self.latest()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_) -> None:
        self._checkpointer.close()

    def latest(self, before: int | None = None) -> int | None:
        """The step of the newest whole checkpoint, or of the newest at or before one."""
        steps = [c.step for c in self._checkpointer.checkpoints]
        return max((s for s in steps if before is None or s <= before), default=None)

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Begins writing `state` and JSON `progress`; returns once the state may be changed."""
        step = int(state.step)
        if step == self._saved:
            return
        self._checkpointer.save_checkpointables_async(
            step, {"state": state}, custom_metadata=progress, force=True
        )
        self._saved = step

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """The newest state and its progress; `like` has the shapes, dtypes and shardings."""
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding or here), like
        )
        loaded = self._checkpointer.load_checkpointables(None, {"state": abstract})
        return loaded["state"], self._checkpointer.metadata().custom_metadata

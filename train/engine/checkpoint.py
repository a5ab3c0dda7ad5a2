"""Checkpoints of a run: its training state and its progress, written and read with Orbax."""

import contextlib
import logging
import math
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import v1 as ocp

from modernbert_jax.errors import UserError, first_line
from modernbert_jax.io import checksums

from .state import TrainState

ASIDE = ".damaged"
"""Suffix of a damaged checkpoint that was set aside; it is never read again."""

PATIENCE = 60.0
"""Seconds that a run that fails waits for its last checkpoint to be written."""

SMALL = 1 << 20
"""Size in bytes up to which files of older checkpoints are read and verified."""


class SaveFailed(RuntimeError):
    """Raised when the last checkpoint of a run could not be written."""


class Checkpoints:
    """The checkpoints of a run, each in a folder `<step>/`; a context manager.

    Leaving the context waits for pending writes. A checkpoint gets its final name only when it is
    complete, so an interrupted write is never read. Checksums of its files are added afterwards and
    verified before it is read. Every process must make the same calls.
    """

    def __init__(
        self,
        folder: str | Path,
        keep: int,
        keep_every: int = 0,
        always: Sequence[int] = (),
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ):
        """Open the folder and set damaged checkpoints aside.

        The newest undamaged checkpoint is verified in full, older ones by sizes and small files.

        Args:
            folder: the folder of all checkpoints.
            keep: how many recent checkpoints to keep.
            keep_every: also keep every checkpoint at a multiple of this step; 0 keeps no others.
            always: steps whose checkpoints are always kept.
            say: receives messages about problems that do not stop the run, in process 0.

        Raises:
            UserError: there are checkpoints, and all of them are damaged.
        """
        policies = ocp.training.preservation_policies
        kept = [policies.LatestN(keep), policies.CustomSteps(tuple(always))]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs long tracebacks
        self.folder = Path(folder).absolute()
        self._first, self._say = jax.process_index() == 0, say
        self._saving: threading.Thread | None = None
        self._problem: Exception | None = None
        self._remove_unfinished()
        self._saved: int | None = self._undamaged()
        self._checkpointer = ocp.training.Checkpointer(
            str(self.folder), preservation_policy=policies.AnyPreservationPolicy(kept)
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_) -> None:
        if kind is not None and self._saving is not None:
            self._saving.join(PATIENCE)
            if self._saving.is_alive():  # waits for a process that has died
                return
        try:
            self.finish()
        except SaveFailed:
            if kind is None:
                raise
        finally:
            with contextlib.suppress(Exception):  # the same error again
                self._checkpointer.close()

    def latest(self, before: int | None = None) -> int | None:
        """Return the newest checkpoint's step, at or before step `before`; None without one."""
        self._settle()
        steps = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
        return max((s for s in steps if before is None or s <= before), default=None)

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Start writing `state` and `progress` (JSON); return once the state may be changed.

        A failed save is reported; training continues.
        """
        step = int(state.step)
        if step == self._saved:
            return
        self._settle()
        self._saved = step
        try:
            response = self._checkpointer.save_checkpointables_async(
                step, {"state": _fields(state)}, custom_metadata=progress, force=True
            )
        except Exception as error:
            if jax.process_count() > 1:  # the other processes may be waiting for this one
                raise
            self._failed(step, error)
            return
        self._saving = threading.Thread(target=self._watch, args=(step, response), daemon=True)
        self._saving.start()

    def finish(self) -> None:
        """Wait for pending writes.

        Raises:
            SaveFailed: the last checkpoint could not be written.
        """
        self._settle()
        if self._problem is not None:
            last = self.latest()
            raise SaveFailed(
                f"{self.folder}: the last checkpoint could not be written"
                f" ({_reason(self._problem)}); the newest is"
                f" {'none' if last is None else f'that of step {last:,}'}; make room there and run"
                " the same command again"
            ) from self._problem

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]] | None:
        """Return the newest state and its progress; None without a checkpoint.

        Args:
            like: a state with the wanted shapes, dtypes and shardings. The shardings may differ
                from those that the state was saved with.
        """
        if self._saved is None:
            return None
        loaded = self._checkpointer.load_checkpointables(self._saved, {"state": _fields(like)})
        return TrainState(**loaded["state"]), self._checkpointer.metadata(
            self._saved
        ).custom_metadata

    def _undamaged(self) -> int | None:
        """Return the newest undamaged step, equal in every process; None without a checkpoint."""
        newest, lost = self._set_aside() if self._first else (None, [])
        if jax.process_count() > 1:
            summary = np.array([-1 if newest is None else newest, len(lost)], np.int32)
            step, count = multihost_utils.broadcast_one_to_all(summary).tolist()
            newest, lost = None if step < 0 else step, lost or ["as process 0 says"] * bool(count)
        if newest is None and lost:
            raise UserError(
                f"{self.folder}: all checkpoints are damaged: {', '.join(lost)}; put undamaged"
                " copies back, or start again in another --output"
            )
        return newest

    def _set_aside(self) -> tuple[int | None, list[str]]:
        """Rename damaged checkpoints, unless all are damaged.

        Returns:
            The newest undamaged step, or None, and descriptions of the damaged checkpoints.
        """
        newest, damaged = None, {}
        numbers = [int(p.name) for p in self.folder.glob("*") if p.name.isdecimal()]
        for step in sorted(numbers, reverse=True):
            path = self.folder / str(step)
            reason = checksums.damage(path, math.inf if newest is None else SMALL)
            if reason is not None:
                damaged[path] = reason
            elif newest is None:
                newest = step
        if newest is None:
            earlier = [f"{path.name}, set aside before" for path in self.folder.glob(f"*{ASIDE}*")]
            return None, [f"{path.name}, {reason}" for path, reason in damaged.items()] + earlier
        for path, reason in damaged.items():
            path.rename(aside := _aside(path))
            self._say(f"{path}: damaged ({reason}); set aside as {aside.name}")
        if any(int(path.name) > newest for path in damaged):
            self._say(f"{self.folder / str(newest)}: used instead")
        return newest, list(damaged.values())

    def _watch(self, step: int, response: Any) -> None:
        """Wait for the write and add the checksums; runs in its own thread."""
        try:
            response.result()
        except Exception as error:
            self._failed(step, error)
            return
        self._problem = None
        if self._first:
            try:
                checksums.write(self.folder / str(step))
            except OSError as error:
                self._say(f"{self.folder / str(step)}: without checksums ({_reason(error)})")

    def _failed(self, step: int, error: Exception) -> None:
        self._problem = error
        if self._first:
            path = self.folder / str(step)
            self._say(f"{path}: not saved ({_reason(error)}); training continues")

    def _settle(self) -> None:
        """Wait for the pending write, and remove its remains if it failed."""
        if self._saving is not None:
            self._saving.join()
            self._saving = None
        try:
            self._checkpointer.wait()
        except Exception as error:  # already reported by `_watch`; Orbax raises it once per thread
            self._problem = error
        self._remove_unfinished()  # always: writers may outlive a failed save
        if self._problem is not None:
            self._saved = None
            self._checkpointer.reload()

    def _remove_unfinished(self) -> None:
        """Remove unfinished checkpoints, which may fill the disk."""
        if self._first:
            for left in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)


def _fields(state: TrainState) -> dict[str, Any]:
    """The fields of a state that has them: those that are None have no place on disk."""
    return {name: field for name, field in state._asdict().items() if field is not None}


def _aside(path: Path) -> Path:
    """Return a free name for a damaged checkpoint, in the same folder."""
    names = [path.with_name(path.name + ASIDE)]
    while names[-1].exists():
        names.append(path.with_name(f"{path.name}{ASIDE}-{len(names) + 1}"))
    return names[-1]


def _reason(error: BaseException) -> str:
    """Return the operating system's reason for a storage error, without TensorStore's details."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return first_line(error)[:200]

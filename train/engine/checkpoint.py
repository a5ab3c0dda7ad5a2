"""Checkpoints of a run: the whole training state and where it stood, with Orbax."""

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
"""Ends the name of a checkpoint that was found damaged; nothing reads it any more."""

PATIENCE = 60.0
"""Seconds that a run which ends with an error waits for its last checkpoint."""

SMALL = 1 << 20
"""Bytes of a file that costs nothing to read."""


class SaveFailed(RuntimeError):
    """The last checkpoint of a run could not be written."""


class Checkpoints:
    """The checkpoints of a run, `<step>/` each. A context manager: leaving it waits for writing.

    A checkpoint appears under its name only when it is whole; what a killed run was writing is
    never read. Once it is there, checksums of its files are added, and before it is read they are
    compared. Every process must make the same calls.
    """

    def __init__(
        self,
        folder: str | Path,
        keep: int,
        keep_every: int = 0,
        always: Sequence[int] = (),
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True),
    ):
        """Keeps the newest `keep`, those at multiples of `keep_every` steps, and those `always`.

        Those that are damaged are set aside; of all but the newest only sizes and small files are
        looked at. What goes wrong without stopping the run is passed to `say`, in process 0.

        Raises:
            UserError: there are checkpoints, and all of them are damaged.
        """
        policies = ocp.training.preservation_policies
        kept = [policies.LatestN(keep), policies.CustomSteps(tuple(always))]
        if keep_every:
            kept.append(policies.EveryNSteps(keep_every))
        logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax shows pages of traceback
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
            if self._saving.is_alive():  # it waits for a process that is no more
                return
        try:
            self.finish()
        except SaveFailed:
            if kind is None:
                raise
        finally:
            with contextlib.suppress(Exception):  # the same once more
                self._checkpointer.close()

    def latest(self, before: int | None = None) -> int | None:
        """The step of the newest whole checkpoint, or of the newest at or before one."""
        self._settle()
        steps = [checkpoint.step for checkpoint in self._checkpointer.checkpoints]
        return max((s for s in steps if before is None or s <= before), default=None)

    def save(self, state: TrainState, progress: dict[str, Any]) -> None:
        """Begins writing `state` and JSON `progress`; returns once the state may be changed.

        A checkpoint that cannot be written is one less, and the next one is tried all the same.
        """
        step = int(state.step)
        if step == self._saved:
            return
        self._settle()
        self._saved = step
        try:
            response = self._checkpointer.save_checkpointables_async(
                step, {"state": state}, custom_metadata=progress, force=True
            )
        except Exception as error:
            if jax.process_count() > 1:  # others may be waiting where this one has left
                raise
            self._failed(step, error)
            return
        self._saving = threading.Thread(target=self._watch, args=(step, response), daemon=True)
        self._saving.start()

    def finish(self) -> None:
        """Waits for writing. Raises `SaveFailed` if the last checkpoint could not be written."""
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
        """The newest state and its progress; None where there is no checkpoint yet.

        `like` has the shapes, dtypes and shardings; the latter may be others than those that the
        state was saved with.
        """
        if self._saved is None:
            return None
        loaded = self._checkpointer.load_checkpointables(self._saved, {"state": like})
        return loaded["state"], self._checkpointer.metadata(self._saved).custom_metadata

    def _undamaged(self) -> int | None:
        """The newest undamaged step, for all processes alike; None where there is nothing yet."""
        newest, lost = self._set_aside() if self._first else (None, [])
        if jax.process_count() > 1:
            told = np.int32([-1 if newest is None else newest, len(lost)])
            step, many = multihost_utils.broadcast_one_to_all(told).tolist()
            newest, lost = None if step < 0 else step, lost or ["as process 0 says"] * bool(many)
        if newest is None and lost:
            raise UserError(
                f"{self.folder}: all checkpoints are damaged: {', '.join(lost)}; put undamaged"
                " copies back, or start again in another --output"
            )
        return newest

    def _set_aside(self) -> tuple[int | None, list[str]]:
        """Renames damaged checkpoints, if one is left. The newest other step; what was damaged."""
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
            before = [f"{path.name}, set aside before" for path in self.folder.glob(f"*{ASIDE}*")]
            return None, [f"{path.name}, {reason}" for path, reason in damaged.items()] + before
        for path, reason in damaged.items():
            path.rename(aside := _aside(path))
            self._say(f"{path}: damaged ({reason}); set aside as {aside.name}")
        if any(int(path.name) > newest for path in damaged):
            self._say(f"{self.folder / str(newest)}: used instead")
        return newest, list(damaged.values())

    def _watch(self, step: int, response: Any) -> None:
        """In a thread of its own: waits for the writing, and adds the checksums."""
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
            self._say(f"{self.folder / str(step)}: not saved ({_reason(error)}); training goes on")

    def _settle(self) -> None:
        """Waits for what is being written, and clears up behind it if that failed."""
        if self._saving is not None:
            self._saving.join()
            self._saving = None
        try:
            self._checkpointer.wait()
        except Exception as error:  # Orbax tells every thread once, and the other one has said it
            self._problem = error
        self._remove_unfinished()  # each time: writers of a failed one may outlive it for a while
        if self._problem is not None:
            self._saved = None
            self._checkpointer.reload()

    def _remove_unfinished(self) -> None:
        """Removes what was begun and will not be finished: it may be what fills the disk."""
        if self._first:
            for left in self.folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(left, ignore_errors=True)


def _aside(path: Path) -> Path:
    """A free name for a damaged checkpoint, beside it."""
    names = [path.with_name(path.name + ASIDE)]
    while names[-1].exists():
        names.append(path.with_name(f"{path.name}{ASIDE}-{len(names) + 1}"))
    return names[-1]


def _reason(error: BaseException) -> str:
    """What the system says of a storage error, without the pages that TensorStore adds."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return os.strerror(int(code[1]))
    return first_line(error)[:200]

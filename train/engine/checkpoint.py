"""Checkpoints of a run: its training state and its progress, written and read with Orbax."""

import contextlib
import math
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

from modernbert_jax.errors import UserError
from modernbert_jax.io import checksums, orbax_files

from .state import TrainState

ASIDE = ".damaged"
"""Suffix of a damaged checkpoint that was set aside; it is never read again."""

PATIENCE = 60.0
"""Seconds that a run that fails waits for its last checkpoint to be written."""

UNFINISHED = ".unfinished"
"""Suffix of a checkpoint that is being written, verified or removed."""

SMALL = 1 << 20
"""Size in bytes up to which files of older checkpoints are read and verified."""

_STATE = "state"
"""Name of the training state in a checkpoint."""


class SaveFailed(RuntimeError):
    """Raised when the last checkpoint of a run could not be written."""


class Checkpoints:
    """The checkpoints of a run, each in a folder `<step>/`; a context manager.

    Leaving the context waits for pending writes. A checkpoint counts as saved, and gets its name,
    when it is complete: its index has been read back, and checksums of its files are in it. They
    are verified before it is read. Older checkpoints are removed only then. Every process must make
    the same calls.
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
        orbax_files.quiet()
        self.folder = Path(folder).absolute()
        self._keep, self._keep_every, self._always = keep, keep_every, frozenset(always)
        self._first, self._say = jax.process_index() == 0, say
        self._saving: threading.Thread | None = None
        self._problem: Exception | None = None
        self._remove_unfinished()
        self._saved: int | None = self._undamaged()
        self._stack = contextlib.ExitStack()
        self._plain = self._stack.enter_context(orbax_files.plain(self.folder))

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
            self._stack.close()

    def latest(self, before: int | None = None) -> int | None:
        """Return the newest checkpoint's step, at or before step `before`; None without one."""
        self._settle()
        steps = self._steps()
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
        fields = _fields(state)
        try:
            response = ocp.save_checkpointables_async(
                self._plain / f"{step}{UNFINISHED}",
                {_STATE: fields},
                custom_metadata=progress,
                overwrite=True,
            )
        except Exception as error:
            if jax.process_count() > 1:  # the other processes may be waiting for this one
                raise
            self._failed(step, error)
            return
        arguments = step, response, len(jax.tree.leaves(fields))
        self._saving = threading.Thread(target=self._watch, args=arguments, daemon=True)
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
                f" ({orbax_files.reason(self._problem)}); the newest is"
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
        path = self._plain / str(self._saved)
        loaded = ocp.load_checkpointables(path, {_STATE: _fields(like)})
        return TrainState(**loaded[_STATE]), ocp.checkpointables_metadata(path).custom_metadata

    def _steps(self) -> list[int]:
        """Steps of the checkpoints in the folder, ascending."""
        return sorted(int(p.name) for p in _numbered(self.folder) if p.is_dir())

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
        for path in sorted(_numbered(self.folder), key=lambda p: int(p.name), reverse=True):
            step, reason = int(path.name), _damage(path, math.inf if newest is None else SMALL)
            if not path.is_dir():
                self._set_one_aside(path, str(reason))
            elif reason is not None:
                damaged[path] = reason
            elif newest is None:
                newest = step
        if newest is None:
            before = [path for path in self.folder.glob(f"*{ASIDE}*") if path.is_dir()]
            earlier = [f"{path.name}, set aside before" for path in before]
            return None, [f"{path.name}, {reason}" for path, reason in damaged.items()] + earlier
        for path, reason in damaged.items():
            self._set_one_aside(path, reason)
        if any(int(path.name) > newest for path in damaged):
            self._say(f"{self.folder / str(newest)}: used instead")
        return newest, list(damaged.values())

    def _set_one_aside(self, path: Path, reason: str) -> None:
        path.rename(aside := _aside(path))
        self._say(f"{path}: damaged ({reason}); set aside as {aside.name}")

    def _watch(self, step: int, response: Any, arrays: int) -> None:
        """Wait for the write, and finish the checkpoint; runs in its own thread."""
        try:
            response.result()
            if self._first:
                self._complete(step, arrays)
        except Exception as error:
            self._failed(step, error)
            return
        self._problem = None

    def _complete(self, step: int, arrays: int) -> None:
        """Read a written checkpoint back, give it its name and remove older ones."""
        unfinished, path = self.folder / f"{step}{UNFINISHED}", self.folder / str(step)
        problem = orbax_files.index_damage(unfinished / _STATE, arrays)
        if problem is None:
            checksums.write(unfinished)
            problem = checksums.damage(unfinished, SMALL)
        if problem is not None:
            raise RuntimeError(problem)
        self._remove(path)
        unfinished.rename(path)
        steps = self._steps()
        kept = {*steps[-self._keep :], *self._always}
        for old in steps:
            if old not in kept and not (self._keep_every and old % self._keep_every == 0):
                self._remove(self.folder / str(old))

    def _remove(self, path: Path) -> None:
        """Remove a checkpoint, if it exists; a kill leaves no half of it under its name."""
        if path.exists():
            path.rename(removed := path.with_name(f"{path.name}.old{UNFINISHED}"))
            shutil.rmtree(removed, ignore_errors=True)

    def _failed(self, step: int, error: Exception) -> None:
        self._problem = error
        if self._first:
            path = self.folder / str(step)
            self._say(f"{path}: not saved ({orbax_files.reason(error)}); training continues")

    def _settle(self) -> None:
        """Wait for the pending write, and remove its remains if it failed."""
        if self._saving is not None:
            self._saving.join()
            self._saving = None
        self._remove_unfinished()  # always: writers may outlive a failed save
        if self._problem is not None:
            self._saved = None

    def _remove_unfinished(self) -> None:
        """Remove unfinished checkpoints, which may fill the disk."""
        if self._first:
            for pattern in ("*.orbax-checkpoint-tmp*", f"*{UNFINISHED}"):
                for left in self.folder.glob(pattern):
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


def _numbered(folder: Path) -> list[Path]:
    """Everything in a folder whose name is a step."""
    paths = folder.iterdir() if folder.is_dir() else ()
    return [p for p in paths if p.name.isdecimal() and str(int(p.name)) == p.name]


def _damage(path: Path, largest: float) -> str | None:
    """Describe how a checkpoint is damaged; None if it is not.

    One without checksums, of an earlier version, is read.

    Args:
        path: of the checkpoint.
        largest: bytes of the largest file to read.
    """
    if not path.is_dir():
        return "is no folder"
    if not (path / _STATE).is_dir():
        return f"{_STATE} is missing"
    if (path / checksums.FILE).exists():
        return checksums.damage(path, largest)
    try:
        ocp.checkpointables_metadata(path)
    except Exception as error:  # Orbax raises many types
        return f"cannot be read ({orbax_files.reason(error)})"
    return orbax_files.index_damage(path / _STATE, content=True)

"""The folder of a run: whose it is, what is in it, and who may continue in it."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

from modernbert_jax.errors import UserError
from modernbert_jax.io import lock
from modernbert_jax.io.files import whole_directory, write_json
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.io.progress import Progress
from modernbert_jax.io.typed_json import differences
from modernbert_jax.tokenizer import Tokenizer

from .distributed import in_first, together

PLAN = "plan.png"
"""Left in the folder by a dry run; allowed in a new run's folder."""

LOCK = ".lock"
"""File that the process that writes a folder has locked."""

INPUTS = "inputs.json"
"""File with the fingerprints of the inputs that the run began with, by name."""


@dataclasses.dataclass(frozen=True)
class RunFolder:
    """The folder of a run with a configuration.

    It holds `config.json`, `inputs.json`, `tokenizer/`, `metrics.jsonl`, `tensorboard/`,
    `checkpoints/<step>/` and at the end `export/`.
    """

    path: Path
    config: dict[str, Any]
    """The run's configuration as JSON."""
    free: Collection[str]
    """Top-level keys that may change when the run is resumed."""
    complete: Callable[[dict[str, Any]], dict[str, Any]] = lambda config: config
    """Brings a configuration into the form in which two are compared, and fills in the defaults
    where an earlier version wrote it."""
    inputs: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What the inputs are: a fingerprint of each by name, or an object whose common keys are
    compared. Keys of the configuration with the same names hold places, which may change."""

    @property
    def started(self) -> bool:
        """Whether the folder holds a run."""
        return (self.path / "config.json").exists()

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints, `<step>/` each."""
        return self.path / "checkpoints"

    @property
    def export(self) -> Path:
        """The trained model, as a Hugging Face directory; a run writes it last."""
        return self.path / "export"

    def differences(self) -> list[str]:
        """Keys in which the run in the folder differs, and that its results depend on."""
        before = read_json(self.path / "config.json")
        with contextlib.suppress(UserError):  # one that cannot be read differs anyway
            before = self.complete(before)
        after = self.complete(self.config)
        recorded = self._recorded()
        same = [k for k in self.inputs if _same_place(k in recorded, before.get(k), after.get(k))]
        changed = differences(before, after)
        return [
            line for line in changed if line.split(":")[0].split(".")[0] not in (*self.free, *same)
        ]

    def changed_inputs(self) -> list[str]:
        """Names of inputs whose content is not what the run in the folder began with."""
        recorded = self._recorded()
        return [
            f"{name} ({_shown(place)})" if (place := self.config.get(name)) else name
            for name, now in self.inputs.items()
            if name in recorded and not _same_content(recorded[name], now)
        ]

    def check(self) -> None:
        """Raise `UserError` if the folder holds something else, or another run."""
        if self.started:
            if changed := self.differences():
                raise UserError(
                    f"{self.path}: holds a run with another configuration ({'; '.join(changed)});"
                    " choose another --output"
                )
            if changed := self.changed_inputs():
                raise UserError(
                    f"{self.path}: holds a run that began with other content of"
                    f" {', '.join(changed)}; restore it, or choose another --output"
                )
        elif self.path.exists() and any(map(_is_foreign, self.path.iterdir())):
            raise UserError(
                f"{self.path}: not empty and not a run; choose another --output or empty it"
            )

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder as the only run that writes it; several processes of a run hold it once.

        The folder is checked again, because another run may have been in it since `check`.

        Raises:
            UserError: another run holds the folder, or has left something in it.
        """
        with only_writer(self.path):
            self.check()
            yield

    def say_finished(self) -> None:
        """Print, in process 0, that the run in the folder was finished by an earlier command."""
        Progress(0).say(f"{self.path}: was finished earlier; nothing is trained again")

    def claim(self, tokenizer: Tokenizer | None = None) -> None:
        """Make the folder, which is held, this run's."""
        together("checked")  # no process finds the folder half claimed
        if jax.process_index() == 0:
            self.path.mkdir(parents=True, exist_ok=True)
            if self.inputs:  # runs of earlier versions have none
                write_json(self.path / INPUTS, {**self.inputs, **self._recorded()})
            write_json(self.path / "config.json", self.config)
            if tokenizer is not None and not (self.path / "tokenizer").exists():
                with whole_directory(self.path / "tokenizer") as temporary:
                    tokenizer.save(temporary)
        together("claimed")

    def _recorded(self) -> dict[str, Any]:
        """Fingerprints of the run in the folder; none where it has none that can be read."""
        if not (self.started and (self.path / INPUTS).exists()):
            return {}
        try:
            return read_json(self.path / INPUTS)
        except UserError:
            return {}


@contextlib.contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made, as the only writer; process 0 does so for all of a run.

    A folder that stays empty is removed.

    Raises:
        UserError: another process holds it, or it cannot be written.
    """
    with contextlib.ExitStack() as stack:

        def hold() -> None:
            if not folder.exists():
                stack.callback(_remove_if_empty, folder)
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
            stack.enter_context(lock.held(folder / LOCK, folder))

        in_first(hold)
        yield


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_foreign(path: Path) -> bool:
    """Whether a file is none that a run leaves before it has written its configuration."""
    unfinished = (f".{INPUTS}.", ".config.json.")
    return path.name not in (PLAN, LOCK, INPUTS) and not path.name.startswith(unfinished)


def _same_place(recorded: bool, before: Any, after: Any) -> bool:
    """Whether a place may be read as another: its content is compared, or both are one."""
    if not before or not after:
        return False
    return recorded or _real(before) == _real(after)


def _real(place: Any) -> list[str]:
    """Real paths of a place, which may be several files."""
    paths = [place] if isinstance(place, str) else place
    return [os.path.realpath(path) for path in paths]


def _shown(place: Any) -> str:
    return place if isinstance(place, str) else ", ".join(place)


def _same_content(before: Any, now: Any) -> bool:
    """Whether two fingerprints agree, in the keys that both have."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        return all(_same_content(before[key], now[key]) for key in before if key in now)
    return before == now


def use_compile_cache() -> None:
    """Keep compiled programs between runs in the user's cache, unless jax has another."""
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "modernbert-jax" / "compiled"))

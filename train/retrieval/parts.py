"""Work in numbered parts, each kept as a file, so that an interrupted run does none of it twice."""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io import fingerprint, lock, outputs
from modernbert_jax.io.files import whole_file, write_json
from modernbert_jax.io.json_reader import read_json

MANIFEST = "manifest.json"
LOCK = "lock"

Arrays = dict[str, np.ndarray]


def beside(output: Path) -> Path:
    """The folder of the parts of an output for which no other is named."""
    return output.with_name(f"{output.name}.cache")


@contextlib.contextmanager
def held(folder: Path) -> Iterator[Path]:
    """A folder for parts, made and locked; removed at the end of the block if nothing was kept.

    Raises:
        UserError: it cannot be written, or another process holds it.
    """
    folder = outputs.check_folder(folder)
    above = [path for path in folder.parents if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with lock.held(folder / LOCK, folder):
            yield folder
    finally:
        with contextlib.suppress(OSError):  # it holds something
            for path in (folder, *above):
                path.rmdir()


class Parts:
    """Arrays of parts 0, 1, ..., below a folder that is named by what they depend on."""

    def __init__(self, cache: Path, name: str, facts: dict[str, Any]):
        """Open the folder, which is made for the first part.

        Args:
            cache: folder above it.
            name: what the parts are.
            facts: everything that the arrays depend on, as JSON.
        """
        facts = json.loads(json.dumps(facts))  # as they are read: lists in place of tuples
        self.key, self._facts = fingerprint.of_json(facts), facts
        self.folder = cache / f"{name}-{self.key[:16]}"
        try:
            if read_json(self.folder / MANIFEST) != facts:
                shutil.rmtree(self.folder)
        except UserError:
            shutil.rmtree(self.folder, ignore_errors=True)

    def get(self, number: int, compute: Callable[[], Arrays]) -> Arrays:
        """The arrays of a part: from its file, or computed and stored.

        Raises:
            UserError: the file is damaged, or cannot be written.
        """
        path = self.path(number)
        try:
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except FileNotFoundError:
            pass
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(f"{path}: is damaged ({error}); remove it") from None
        arrays = compute()
        try:
            if not (self.folder / MANIFEST).exists():
                write_json(self.folder / MANIFEST, self._facts)
            with whole_file(path) as temporary, temporary.open("wb") as file:
                np.savez(file, **arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise outputs.unwritable(path, error) from None
        return arrays

    def path(self, number: int) -> Path:
        """The file of a part."""
        return self.folder / f"{number:06d}.npz"

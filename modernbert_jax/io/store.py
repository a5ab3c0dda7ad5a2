"""Where prepared rows are written: a folder here, or anything that fsspec reaches.

Either way a file is there whole or not at all: on a file system by renaming, in an object store
because an upload becomes visible when it is complete.
"""

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import whole_file


def is_remote(path: str | Path) -> bool:
    """Whether a path is a URL such as gs://bucket/folder."""
    return "://" in str(path)


@contextlib.contextmanager
def filesystem_errors(path: str | Path, what: str) -> Iterator[None]:
    """Turns what file systems raise into one line that names the path: "cannot be `what`"."""
    try:
        yield
    except UserError:
        raise
    except (ImportError, ValueError) as error:  # a protocol unknown, or its package missing
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        again = "; correct that and run the same command again" if what == "written" else ""
        raise UserError(f"{path}: cannot be {what} ({error.strerror or error}){again}") from error


class Store:
    """A folder to write into, by file names relative to it. Can be sent to other processes."""

    def __init__(self, root: str):
        """For a local path or an fsspec URL."""
        self.root = root.rstrip("/")

    @functools.cached_property
    def _remote(self) -> tuple[fsspec.AbstractFileSystem, str] | None:
        return fsspec.url_to_fs(self.root) if is_remote(self.root) else None

    def __getstate__(self):
        return {"root": self.root}

    def path(self, name: str) -> str:
        """The full path of a file, as errors name it."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        with filesystem_errors(self.path(name), "read"):
            if self._remote:
                fs, root = self._remote
                return fs.exists(f"{root}/{name}")
            return Path(self.path(name)).exists()

    def read(self, name: str) -> bytes:
        """The content of a file."""
        with filesystem_errors(self.path(name), "read"):
            if self._remote:
                fs, root = self._remote
                return fs.cat_file(f"{root}/{name}")
            return Path(self.path(name)).read_bytes()

    def names(self, folder: str) -> list[str]:
        """Names of the files right in a folder, sorted; none where it does not exist."""
        with filesystem_errors(self.path(folder), "read"):
            if self._remote:
                fs, root = self._remote
                if not fs.isdir(f"{root}/{folder}"):
                    return []
                fs.invalidate_cache()
                found = fs.ls(f"{root}/{folder}", detail=False)
                return sorted(f.rstrip("/").rsplit("/", 1)[1] for f in found)
            place = Path(self.path(folder))
            return sorted(p.name for p in place.iterdir()) if place.is_dir() else []

    def write(self, name: str, content: bytes) -> None:
        """Replaces a file."""
        with self.writing(name) as path:
            path.write_bytes(content)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write; it becomes the file if the block ends well.

        Raises:
            UserError: the disk is full, or writing is not permitted.
        """
        with filesystem_errors(self.path(name), "written"):
            if self._remote:
                fs, root = self._remote
                with tempfile.TemporaryDirectory() as folder:
                    path = Path(folder) / "file"
                    yield path
                    fs.makedirs(f"{root}/{name}".rsplit("/", 1)[0], exist_ok=True)
                    fs.put_file(str(path), f"{root}/{name}")
                return
            path = Path(self.path(name))
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(path) as temporary:
                yield temporary

    def remove(self, folder: str) -> None:
        """Removes a folder and what it holds, if it is there."""
        with filesystem_errors(self.path(folder), "removed"):
            if self._remote:
                fs, root = self._remote
                if fs.exists(f"{root}/{folder}"):
                    fs.rm(f"{root}/{folder}", recursive=True)
            elif Path(self.path(folder)).exists():
                shutil.rmtree(self.path(folder))

"""`Store`: a folder to write files into, local or at any fsspec URL.

A file appears whole or not at all: by renaming in a local folder, and in an object store because
an upload becomes visible when it is complete.
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
    """True if a path is a URL such as gs://bucket/folder."""
    return "://" in str(path)


@contextlib.contextmanager
def filesystem_errors(path: str | Path, action: str) -> Iterator[None]:
    """Turn errors of file systems into a `UserError` of one line: "PATH: cannot be ACTION".

    Args:
        path: that the error names.
        action: "read", "written" or "removed".
    """
    try:
        yield
    except UserError:
        raise
    except (ImportError, ValueError) as error:  # an unknown protocol, or a missing package
        raise UserError(f"{path}: {error}") from None
    except OSError as error:
        remedy = "; correct that and run the same command again" if action == "written" else ""
        reason = error.strerror or error
        raise UserError(f"{path}: cannot be {action} ({reason}){remedy}") from error


class Store:
    """A folder whose files are named relative to it; can be sent to other processes."""

    def __init__(self, root: str):
        """Open a store.

        Args:
            root: a local path or an fsspec URL.
        """
        self.root = root.rstrip("/")

    @functools.cached_property
    def _remote(self) -> tuple[fsspec.AbstractFileSystem, str] | None:
        return fsspec.url_to_fs(self.root) if is_remote(self.root) else None

    def __getstate__(self) -> dict[str, str]:
        return {"root": self.root}

    def path(self, name: str) -> str:
        """The full path or URL of a file, as errors name it."""
        return f"{self.root}/{name}"

    def exists(self, name: str) -> bool:
        """True if the file exists."""
        with filesystem_errors(self.path(name), "read"):
            if self._remote:
                fs, root = self._remote
                fs.invalidate_cache()  # other processes write, too
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
        """Names of the entries of a folder, sorted; empty if it does not exist."""
        with filesystem_errors(self.path(folder), "read"):
            if self._remote:
                fs, root = self._remote
                fs.invalidate_cache()
                if not fs.isdir(f"{root}/{folder}"):
                    return []
                paths = fs.ls(f"{root}/{folder}", detail=False)
                return sorted(p.rstrip("/").rsplit("/", 1)[1] for p in paths)
            local = Path(self.path(folder))
            return sorted(p.name for p in local.iterdir()) if local.is_dir() else []

    def write(self, name: str, content: bytes) -> None:
        """Write a file, replacing an existing one."""
        with self.writing(name) as path:
            path.write_bytes(content)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local path to write to, which becomes the file if the block succeeds.

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
        """Remove a folder and its content, if it exists."""
        with filesystem_errors(self.path(folder), "removed"):
            if self._remote:
                fs, root = self._remote
                if fs.exists(f"{root}/{folder}"):
                    fs.rm(f"{root}/{folder}", recursive=True)
            elif Path(self.path(folder)).exists():
                shutil.rmtree(self.path(folder))

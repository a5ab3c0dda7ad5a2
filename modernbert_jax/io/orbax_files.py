"""Folders that Orbax writes: any path, no tracebacks, and an index that is read back.

Orbax takes the brackets in `runs [2]/checkpoints` for a pattern, writes a folder without an index
and reports no error. It logs a failed write with tracebacks of every thread.
"""

import contextlib
import errno
import glob
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError, first_line
from modernbert_jax.io.text import check_text

_INDEX = "manifest.ocdbt"
_ARRAY = b"zarr.json"
"""End of the key that describes an array."""


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[Path]:
    """A path to a folder that holds no pattern: its own, or that of a link to it."""
    folder = folder.absolute()
    check_text(str(folder), str(folder))  # what Orbax cannot open
    if not glob.has_magic(str(folder)):
        yield folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as links:
        if glob.has_magic(links):
            raise UserError(
                f"{folder}: Orbax cannot write below a name with *, ? or [; set TMPDIR to a folder"
                " without them, and it can"
            )
        link = Path(links) / "folder"
        link.symlink_to(folder, target_is_directory=True)
        yield link


def quiet() -> None:
    """Keep Orbax and its threads from logging tracebacks; errors are raised all the same."""
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not isinstance(sys.unraisablehook, _Hook):
        sys.unraisablehook = _Hook(sys.unraisablehook)


class _Hook:
    """A hook that drops errors of writers that outlive a failed save, and passes on all others."""

    def __init__(self, others: Callable[[Any], Any]):
        self._others = others

    def __call__(self, unraisable: Any) -> None:
        error = unraisable.exc_value
        if not (isinstance(error, RuntimeError) and str(error) == "Event loop is closed"):
            self._others(unraisable)


def os_error(error: BaseException) -> OSError:
    """A storage error as one of the operating system, without TensorStore's details."""
    if isinstance(error, OSError) and error.errno and error.strerror:
        return OSError(error.errno, error.strerror)
    if code := re.search(r"os_error_code='(\d+)'", str(error)):
        return OSError(int(code[1]), os.strerror(int(code[1])))
    return OSError(errno.EIO, first_line(error)[:200])


def reason(error: BaseException) -> str:
    """The reason of a storage error in a few words."""
    return str(os_error(error).strerror)


def index_damage(folder: Path, count: int | None = None, *, content: bool = False) -> str | None:
    """Describe what the index of a folder of arrays lacks; None if it is whole.

    Args:
        folder: with the arrays, or with a folder that holds them.
        count: how many arrays there must be; None is any number but 0.
        content: read every array too.
    """
    import tensorstore  # takes a while, and only those that write and read with Orbax need it

    try:
        spec = {"driver": "ocdbt", "base": {"driver": "file", "path": f"{_indexed(folder)}/"}}
        store = tensorstore.KvStore.open(spec).result()
        keys = store.list().result()
        for key in keys if content else ():
            store.read(key).result()
    except Exception as error:  # TensorStore raises ValueError for everything
        return f"its index cannot be read ({reason(error)})"
    arrays = sum(key.endswith(_ARRAY) for key in keys)
    if not arrays or count not in (None, arrays):
        return f"its index has {arrays:,} arrays" + (f" of {count:,}" if count else "")
    return None


def _indexed(folder: Path) -> Path:
    """The folder itself or the one in it that has an index; parts of single processes have others.

    Raises:
        FileNotFoundError: there is no index.
    """
    for path in (folder, *sorted(folder.iterdir())):
        if (path / _INDEX).is_file() and not path.name.startswith("ocdbt."):
            return path
    raise FileNotFoundError(errno.ENOENT, f"{_INDEX} is missing")

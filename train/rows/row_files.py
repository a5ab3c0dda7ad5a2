"""Files of packed rows for reading: opened when needed, and damage named."""

import bisect
import contextlib
import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grain

from modernbert_jax.errors import UserError

from . import manifest as manifests
from .manifest import Shard

HASHED = 4 << 30
"""Bytes that are compared with their checksums before use. Of more only the sizes are compared,
and damage is found when a row is read: every block of an ArrayRecord file has a hash."""


class RowFiles(grain.sources.ArrayRecordDataSource):
    """Records of several files as one sequence; a file is opened when it is first read from."""

    def __init__(self, folder: Path, shards: Sequence[Shard]):
        self._files = [folder / shard.file for shard in shards]
        self._ends = list(itertools.accumulate(shard.rows for shard in shards))
        _allow_open_files(len(shards))
        # The numbers of rows are known, so that no file has to be opened for them.
        super().__init__([f"{f}[0:{s.rows}]" for f, s in zip(self._files, shards, strict=True)])

    def __getitem__(self, index: int) -> bytes:
        """A record. Raises `UserError` that names the file if it cannot be read."""
        try:
            return super().__getitem__(index)
        except Exception as error:  # the library raises what its C++ made of it
            file = self._files[bisect.bisect_right(self._ends, index)]
            said = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{file}: damaged or unreadable ({said}); prepare the corpus again, or copy the"
                " file again from where it was made"
            ) from error


def check(folder: Path, shards: Sequence[Shard], hashed: int = HASHED) -> None:
    """Compares files with the manifest: sizes always, checksums if they have up to `hashed` bytes.

    Raises `UserError` that names the first damaged file.
    """
    content = sum(shard.bytes for shard in shards) <= hashed
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda shard: manifests.check(folder, shard, content=content), shards):
            pass


def _allow_open_files(number: int) -> None:
    """Raises the limit of open files as far as it may be, if that many come near to it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and 2 * number > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

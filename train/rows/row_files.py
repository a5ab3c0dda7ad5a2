"""Files of packed rows for reading, opened on demand; errors name the damaged file."""

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
"""Bytes up to which `check` computes checksums. Of larger data only sizes are compared; damage is
then noticed when a row is read, because every block of an ArrayRecord file has a hash."""


class RowFiles(grain.sources.ArrayRecordDataSource):
    """Records of several files as one sequence; each file is opened at its first read."""

    def __init__(self, folder: Path, shards: Sequence[Shard]):
        self._files = [folder / shard.file for shard in shards]
        self._ends = list(itertools.accumulate(shard.rows for shard in shards))
        _allow_open_files(len(shards))
        # With the numbers of rows given, no file has to be opened for counting.
        super().__init__([f"{f}[0:{s.rows}]" for f, s in zip(self._files, shards, strict=True)])

    def __getitem__(self, index: int) -> bytes:
        """Read a record. Raises `UserError` that names a damaged file."""
        try:
            return super().__getitem__(index)
        except Exception as error:  # the library raises many types
            file = self._files[bisect.bisect_right(self._ends, index)]
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{file}: damaged or unreadable ({reason}); prepare the corpus again, or copy the"
                " file again from where it was made"
            ) from error


def check(folder: Path, shards: Sequence[Shard], hashed: int = HASHED) -> None:
    """Compare files with the manifest: sizes, and checksums if they total up to `hashed` bytes.

    Raises `UserError` that names the first damaged file.
    """
    content = sum(shard.bytes for shard in shards) <= hashed
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(lambda shard: manifests.check(folder, shard, content=content), shards):
            pass


def _allow_open_files(number: int) -> None:
    """Raise the limit of open files to its maximum if `number` comes near it."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and 2 * number > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

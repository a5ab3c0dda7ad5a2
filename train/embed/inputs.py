"""The input as one numbered list of rows: files, shards, and where in the files each begins."""

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec

from modernbert_jax.errors import UserError
from modernbert_jax.io import fingerprint
from modernbert_jax.io.paths import expanded, file_type
from modernbert_jax.io.store import filesystem_errors, is_remote

from ..corpus.sources import Source, fetched
from ..corpus.sources.find import find
from . import rows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """Where a shard begins."""

    source: int
    """Number of the file."""
    row: int
    """Number of the row in it."""
    byte: int = 0
    """Where the row begins, if reading can begin there; else 0."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """How the rows of the input are divided into shards."""

    rows: tuple[int, ...]
    """Number of rows of each file."""
    size: int
    """Rows of a shard; the last one may have less."""
    starts: tuple[Start, ...]
    """Where each shard begins."""

    @property
    def total(self) -> int:
        """Number of rows."""
        return sum(self.rows)

    def first(self, shard: int) -> int:
        """Number of the first row of a shard."""
        return shard * self.size

    def count(self, shard: int) -> int:
        """Number of rows of a shard."""
        return min(self.size, self.total - self.first(shard))


def files(written: Sequence[str]) -> list[Source]:
    """The files of an input, in the order in which they are read.

    Raises:
        UserError: nothing has that name, or a file's format holds no texts.
    """
    found = find(written, rows.FORMATS)
    for source in found:
        if source.format not in rows.FORMATS:
            ending = source.path.rpartition(".")[2]
            raise UserError(f"{source.path}: .{ending} files hold no texts that are read")
    return found


def check_outside(output: str, written: Sequence[str]) -> None:
    """Raise `UserError` for an output in a folder that is an input: it would be read next time."""
    for path in map(expanded, written):
        is_folder = not is_remote(path) and not is_remote(output) and Path(path).is_dir()
        if is_folder and Path(output).resolve().is_relative_to(Path(path).resolve()):
            raise UserError(f"{output}: is in the input {path}; name a folder outside of it")


def identity(sources: Sequence[Source], lines: bool) -> str:
    """Fingerprint of what the files hold, and of the names that are ids.

    Of files at URLs, that which their storage reports instead of the content.
    """

    def of(source: Source) -> list[Any]:
        is_id = source.format == "text" and not lines
        name = source.path if is_id else list(file_type(source.path))
        if not is_remote(source.path):
            return [name, source.bytes, fingerprint.of_file(source.stored or source.path)]
        with filesystem_errors(source.path, "read"):
            fs, path = fsspec.url_to_fs(source.path)
            return [name, source.bytes, str(fs.ukey(path))]

    with ThreadPoolExecutor(4) as pool:
        return fingerprint.of_json(list(pool.map(of, sources)))[:16]


def survey(
    sources: Sequence[Source], lines: bool, size: int, watch: Callable[[int], None]
) -> Layout:
    """Count the rows of all files, and find where shards of `size` rows begin.

    Args:
        sources: the files.
        lines: whether the lines of plain text are texts.
        size: rows of a shard.
        watch: called with the number of files that are counted.

    Raises:
        UserError: a file cannot be read to its end.
    """
    counts: list[int] = []
    starts: list[Start] = []
    before = 0
    for number, source in enumerate(sources):
        first = len(starts) * size - before
        with fetched(source) as path:
            count, begins = rows.count(source, path, lines, itertools.count(first, size))
        seekable = rows.seekable(source, lines)
        starts += [
            Start(source=number, row=row, byte=begins[row] if seekable else 0)
            for row in range(first, count, size)
        ]
        counts.append(count)
        before += count
        watch(number + 1)
    return Layout(rows=tuple(counts), size=size, starts=tuple(starts))


class Reader:
    """Reads shards; consecutive ones in one go, because some files have to be read from the start.

    Use it as a context manager, which removes local copies.
    """

    def __init__(self, sources: Sequence[Source], layout: Layout, lines: bool):
        """Read files that are divided in this way."""
        self._sources, self._layout, self._lines = sources, layout, lines
        self._before = [0, *itertools.accumulate(layout.rows)]
        self._stack = contextlib.ExitStack()
        self._number, self._path = -1, Path()
        self._rows: rows.Numbered = iter(())
        self._at = 0  # rows before this one are read
        self._waiting: tuple[int, Any] | None = None  # one that is read for the next shard

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, shard: int) -> Iterator[tuple[Source, int, int, Any]]:
        """Yield the rows of a shard, without blank lines.

        Returns:
            The file, the number of the row in it and in the whole input, and its values by column,
            or the reason why there are none (`UserError`).
        """
        start, left = self._layout.starts[shard], self._layout.count(shard)
        number, row, byte = start.source, start.row, start.byte
        while left > 0:
            end = min(self._layout.rows[number], row + left)
            for at, values in self._until(number, row, byte, end):
                yield self._sources[number], at, self._before[number] + at, values
            left -= end - row
            number, row, byte = number + 1, 0, 0

    def _until(self, number: int, row: int, byte: int, end: int) -> rows.Numbered:
        """Rows of a file from `row`, which begins at `byte` if that is known, to before `end`."""
        source = self._sources[number]
        if number != self._number:
            self._stack.close()
            self._path = self._stack.enter_context(fetched(source))
        jumps = self._at < row and (byte or source.format == "parquet")
        if number != self._number or self._at > row or jumps:
            self._rows = rows.read(source, self._path, self._lines, row, byte)
            self._number, self._waiting = number, None
        while True:
            item = self._waiting if self._waiting is not None else next(self._rows, None)
            self._waiting = item
            if item is None or item[0] >= end:
                break
            self._at, self._waiting = item[0] + 1, None
            if item[0] >= row:
                yield item
        self._at = end

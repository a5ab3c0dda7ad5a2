"""Rows of a file of texts, from any row on: their number, and their values by column."""

import contextlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import check_texts
from modernbert_jax.io.paths import Format, file_type

from ..corpus.sources import Bad, Damaged, Piece, Source, line_records, text
from ..corpus.sources.compressed import CUT_OFF, lines_of
from ..tasks import arrow

FORMATS: tuple[Format, ...] = ("text", "jsonl", "json", "csv", "tsv", "parquet", "arrow")
"""Formats of files with texts."""

TEXT = "text"
"""Column of the texts of plain text files."""

_CHUNK = 2**24
"""Bytes that are searched for line ends at a time."""

Numbered = Iterator[tuple[int, Any]]
"""Numbers of rows from 0, with values by column, or the reason why there are none (`UserError`)."""


def by_line(source: Source, lines: bool) -> bool:
    """Whether a row is a line; blank lines count, but have no values.

    Args:
        source: the file.
        lines: whether the lines of plain text are texts.
    """
    return source.format == "jsonl" or (source.format == "text" and lines)


def seekable(source: Source, lines: bool) -> bool:
    """Whether reading can begin at a byte: `count` says where rows begin."""
    return by_line(source, lines) and not file_type(source.path).compression


def count(
    source: Source, path: Path, lines: bool, starts: Iterator[int]
) -> tuple[int, dict[int, int]]:
    """Number of rows of a file, and at which byte some of them begin where it is `seekable`.

    Args:
        source: the file.
        path: of its local copy.
        lines: whether the lines of plain text are texts.
        starts: numbers of those rows, ascending without end.

    Raises:
        UserError: the file cannot be read to its end.
    """
    with reasons(source):
        if by_line(source, lines):
            return _count_lines(path, file_type(source.path).compression, starts)
        if source.format == "text":
            return 1, {}
        if source.format in ("parquet", "arrow"):
            return arrow.count(path, source.format), {}
        return sum(1 for _ in _records(source, path)), {}


def read(source: Source, path: Path, lines: bool, row: int = 0, byte: int = 0) -> Numbered:
    """Yield the rows of a file, from a row on, without blank lines.

    Args:
        source: the file.
        path: of its local copy.
        lines: whether the lines of plain text are texts.
        row: number of the first row.
        byte: where it begins in the file, if that is known.

    Raises:
        UserError: the file cannot be read to its end.
    """
    with reasons(source):
        if by_line(source, lines):
            rows = _lines(path, source, row, byte)
        elif source.format == "text":
            rows = itertools.islice(_whole(source, path), row, None)
        elif source.format in ("parquet", "arrow"):
            rows = arrow.rows_from(path, source.format, row)
        else:
            values = (values for _, values in _records(source, path))
            rows = itertools.islice(enumerate(values), row, None)
        for number, values in rows:
            yield number, _checked(values)


@contextlib.contextmanager
def reasons(source: Source) -> Iterator[None]:
    """Turn errors of reading a file into a `UserError` that names it."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{source.path}: {error}") from error
    except (Damaged, OSError, *CUT_OFF) as error:
        raise UserError(f"{source.path}: damaged or unreadable ({error})") from error


def _checked(values: Any) -> Any:
    """The values, or the reason why they cannot be used."""
    if isinstance(values, UserError):
        return values
    try:
        check_texts(values)
    except UserError as error:
        return error
    return values


def _records(source: Source, path: Path) -> line_records.RawRecords:
    """Records of a JSON document or a table."""
    format, compression = file_type(source.path)
    return line_records.READERS[format](line_records.numbered_lines(path, compression))


def _whole(source: Source, path: Path) -> Numbered:
    """A plain text file as one row."""
    for content in text.read_text(path, Piece(source=source), TEXT):
        yield 0, UserError(content.reason) if isinstance(content, Bad) else {TEXT: content}


def _lines(path: Path, source: Source, row: int, byte: int) -> Numbered:
    """Rows of a file whose rows are lines."""
    lines = line_records.numbered_lines(path, file_type(source.path).compression, byte)
    # Lines before the first one are read, but not parsed.
    skipped = itertools.islice(lines, 0 if byte else row, None)
    for number, (_, line) in enumerate(skipped, start=row):
        if isinstance(line, UserError):
            yield number, line
        elif line.strip():
            is_text = source.format == "text"
            yield number, {TEXT: line.rstrip("\r\n")} if is_text else line_records.object_of(line)


def _count_lines(path: Path, compression: str, starts: Iterator[int]) -> tuple[int, dict[int, int]]:
    """Number of lines, and where some of them begin."""
    rows = position = 0
    begins: dict[int, int] = {}
    wanted = next(starts)
    last = b"\n"
    with lines_of(path, compression) as opened:
        file: Any = opened if isinstance(opened, io.BufferedReader) else io.BufferedReader(opened)
        while chunk := file.read(_CHUNK):
            if not position and not wanted:
                begins[0], wanted = 0, next(starts)
            ends = np.flatnonzero(np.frombuffer(chunk, np.uint8) == 10)
            while wanted - rows <= len(ends):
                begins[wanted] = position + int(ends[wanted - rows - 1]) + 1
                wanted = next(starts)
            rows, position, last = rows + len(ends), position + len(chunk), chunk[-1:]
    return rows + (last != b"\n"), begins

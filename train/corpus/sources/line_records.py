"""Records of text files: JSON lines, JSON documents, comma- and tab-separated tables."""

import csv
import itertools
import numbers
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import parse_json
from modernbert_jax.io.paths import Format, file_type

from .compressed import CUT_OFF, lines_of
from .document import Bad, Damaged, Document, Piece, decoded, problem

Lines = Iterator[tuple[int, str | UserError]]
"""Numbered lines of a file, or the reason why one cannot be used."""

RawRecords = Iterator[tuple[int, Any]]
"""Line or row numbers with values by column, or the reason why there are none (`UserError`)."""

_LONGEST = 1 << 30
"""Maximum characters of a field; Python's default is 131,072."""


def numbered_lines(path: Path, compression: str, byte: int = 0) -> Lines:
    """Yield the lines of a local file with their ends; a bad line does not stop the others.

    Lines count from 1, or from the one that begins at `byte` of a file that is not compressed.

    Raises:
        UserError: the file cannot be read to its end.
    """
    try:
        with lines_of(path, compression) as lines:
            if byte:
                lines.seek(byte)
            for number, line in enumerate(lines, start=1):
                text = decoded(line)
                yield number, text if isinstance(text, str) else UserError(text.reason)
    except CUT_OFF as error:
        raise UserError(f"damaged or unreadable ({error})") from None
    except OSError as error:
        raise UserError(f"damaged or unreadable ({error.strerror or error})") from None


def json_lines(lines: Iterable[tuple[int, str | UserError]]) -> RawRecords:
    """Read a JSON object from each line that is not blank."""
    for number, line in lines:
        if isinstance(line, UserError):
            yield number, line
        elif line.strip():
            yield number, object_of(line)


def json_document(
    lines: Lines, records_of: Callable[[dict[str, Any]], list[Any]] = lambda value: [value]
) -> RawRecords:
    """Read JSON lines, which often have this ending too; or one JSON document, a list of records.

    Args:
        lines: of the file. JSON lines are read one at a time, a document as a whole.
        records_of: gives the records of a document that is one object.

    Raises:
        UserError: neither of the two.
    """
    filled = ((n, line) for n, line in lines if isinstance(line, UserError) or line.strip())
    start = list(itertools.islice(filled, 2))
    if len(start) == 2 and not any(isinstance(x, UserError) for x in (start[0][1], _first(start))):
        yield from json_lines(itertools.chain(start, filled))
        return
    start += filled
    if not start:
        return
    texts = [line for _, line in start if isinstance(line, str)]
    try:
        for _, line in start:
            if isinstance(line, UserError):
                raise line
        value = parse_json("".join(texts), surrogates=True)
    except UserError:
        if len(start) > 1 and texts and texts[0].lstrip().startswith("{"):
            yield from json_lines(start)
            return
        raise
    if isinstance(value, dict):
        value = records_of(value)
    if not isinstance(value, list):
        raise UserError("holds neither a list of records nor JSON lines")
    for number, row in enumerate(value, start=1):
        yield number, row if isinstance(row, dict | UserError) else UserError("not a JSON object")


def comma_separated(lines: Lines) -> RawRecords:
    """Read CSV with a header; quoted fields may contain line ends. Empty fields are None."""
    return _table(lines, {"strict": True})


def tab_separated(lines: Lines) -> RawRecords:
    """Read TSV with a header. Quotes have no meaning, as in GLUE's files."""
    return _table(lines, {"delimiter": "\t", "quoting": csv.QUOTE_NONE})


READERS: dict[Format, Callable[[Lines], RawRecords]] = {
    "json": json_document,
    "csv": comma_separated,
    "tsv": tab_separated,
}


def read(path: Path, piece: Piece, field: str) -> Iterator[Document | Bad]:
    """Yield the text of each record of a file."""
    format, compression = file_type(piece.source.path)
    try:
        for number, values in READERS[format](numbered_lines(path, compression)):
            document = text_of(values, field)
            if isinstance(document, Bad):
                document = Bad(f":{number}", document.reason)
            yield document
    except UserError as error:
        raise Damaged(error) from None


def text_of(values: Any, field: str) -> Document | Bad:
    """The text of a record: its value at a column or nested key."""
    if isinstance(values, UserError):
        return Bad("", str(values))
    if not isinstance(values, Mapping):
        return Bad("", "not a JSON object")
    text = value_at(values, field)
    if text is None:
        return Bad("", f"has no {field!r}")
    if not isinstance(text, str):
        return Bad("", f"{field!r} is not a string")
    reason = problem(text)
    return Bad("", reason) if reason else text


def value_at(values: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or None if it is missing.

    Dots lead into objects where no column has the full name.
    """
    value: Any = values
    for key in [column] if column in values else column.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return None if is_missing(value) else value


def is_missing(value: Any) -> bool:
    """Whether a value is null, or NaN, with which pandas marks missing values."""
    return value is None or (isinstance(value, numbers.Number) and bool(value != value))


def _first(lines: list[tuple[int, str | UserError]]) -> dict[str, Any] | UserError:
    """The first line as an object, or the reason why it is none."""
    line = lines[0][1]
    return line if isinstance(line, UserError) else object_of(line)


def object_of(line: str | bytes) -> dict[str, Any] | UserError:
    """The JSON object in a line, or the reason why there is none."""
    try:
        value = parse_json(line, surrogates=True)
    except UserError as error:
        return error
    return value if isinstance(value, dict) else UserError("not a JSON object")


def _table(lines: Lines, dialect: dict[str, Any]) -> RawRecords:
    read = 0

    def text() -> Iterator[str]:
        nonlocal read
        for number, line in lines:
            if isinstance(line, UserError):
                raise UserError(f"line {number}: {line}")
            read = number
            yield line

    csv.field_size_limit(max(_LONGEST, csv.field_size_limit()))
    rows = csv.reader(text(), **dialect)
    try:
        header = next(rows, [])
        repeated, count = Counter(header).most_common(1)[0] if header else ("", 0)
        if count > 1:
            raise UserError(f"names column {repeated!r} twice in its first line")
        start = read + 1
        for row in rows:
            if len(row) == len(header):
                yield start, {c: v if v else None for c, v in zip(header, row, strict=True)}
            elif row:
                yield start, UserError(f"has {len(row)} fields, the first line {len(header)}")
            start = read + 1
    except csv.Error as error:
        raise UserError(f"line {read}: not CSV ({error})") from None

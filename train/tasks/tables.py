"""Records from text tables: comma- and tab-separated values, and CoNLL's columns."""

import csv
from collections.abc import Iterator
from typing import Any

from modernbert_jax.errors import UserError

from .records import Lines, RawRecords

_LONGEST = 1 << 30
"""Maximum characters of a field; Python's default is 131,072."""


def comma_separated(lines: Lines) -> RawRecords:
    """Read CSV with a header; quoted fields may contain line ends."""
    return _table(lines, {"strict": True})


def tab_separated(lines: Lines) -> RawRecords:
    """Read TSV with a header. Quotes have no meaning, as in GLUE's files."""
    return _table(lines, {"delimiter": "\t", "quoting": csv.QUOTE_NONE})


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
        repeated = sorted({c for c in header if header.count(c) > 1})
        if repeated:
            raise UserError(f"names column {repeated[0]!r} twice in its first line")
        start = read + 1
        for row in rows:
            if len(row) == len(header):
                yield start, {c: v if v else None for c, v in zip(header, row, strict=True)}
            elif row:
                yield start, UserError(f"has {len(row)} fields, the first line {len(header)}")
            start = read + 1
    except csv.Error as error:
        raise UserError(f"line {read}: not CSV ({error})") from None


def conll(lines: Lines) -> RawRecords:
    """Read one word per line, its tag last, with empty lines between records.

    Values are `tokens` and `ner_tags`, the columns of the data set on the hub. A record's place is
    its first line. Lines of -DOCSTART- are ignored.
    """
    start, words, tags = 0, [], []
    problem: UserError | None = None
    for number, line in lines:
        if isinstance(line, UserError):
            problem, fields = problem or line, ["?", "?"]
        else:
            fields = line.split()
        if fields and fields[0] != "-DOCSTART-":
            start = start or number
            if len(fields) < 2:
                problem = problem or UserError(f"line {number} has a word without a tag")
            words.append(fields[0])
            tags.append(fields[-1])
        elif words:
            yield start, problem or {"tokens": words, "ner_tags": tags}
            start, words, tags, problem = 0, [], [], None
    if words:
        yield start, problem or {"tokens": words, "ner_tags": tags}

"""Tables as text: comma- and tab-separated values, and CoNLL's columns of words and tags."""

import csv
from collections.abc import Iterator
from typing import Any

from modernbert_jax.errors import UserError

Lines = Iterator[tuple[int, str | UserError]]
Rows = Iterator[tuple[int, dict[str, Any] | UserError]]

_LONGEST = 1 << 30
"""Characters in a field; Python's own limit is 128 thousand."""


def comma_separated(lines: Lines) -> Rows:
    """CSV with a header; quoted fields may hold line ends."""
    return _table(lines, {"strict": True})


def tab_separated(lines: Lines) -> Rows:
    """TSV with a header. Quotes mean nothing, as in GLUE's files."""
    return _table(lines, {"delimiter": "\t", "quoting": csv.QUOTE_NONE})


def _table(lines: Lines, dialect: dict[str, Any]) -> Rows:
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
        twice = sorted({c for c in header if header.count(c) > 1})
        if twice:
            raise UserError(f"names column {twice[0]!r} twice in its first line")
        start = read + 1
        for row in rows:
            if len(row) == len(header):
                yield start, {c: v if v else None for c, v in zip(header, row, strict=True)}
            elif row:
                yield start, UserError(f"has {len(row)} fields, the first line {len(header)}")
            start = read + 1
    except csv.Error as error:
        raise UserError(f"line {read}: not CSV ({error})") from None


def conll(lines: Lines) -> Rows:
    """A word in each line, its tag last, and an empty line between records.

    Values are `tokens` and `ner_tags`, the columns of the data set on the hub; records are placed
    by their first line. Lines of -DOCSTART- are no records.
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

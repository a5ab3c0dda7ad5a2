"""Texts by id: corpora and queries, streamed or in a dictionary."""

import collections
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modernbert_jax.errors import UserError, clipped
from modernbert_jax.io.paths import file_type, matches

from ...tasks import Problems, Record, lines, stream

IDS = (
    "_id",
    "id",
    "docid",
    "pid",
    "qid",
    "query_id",
    "query-id",
    "document_id",
    "doc_id",
    "passage_id",
)
"""Names of the column of ids."""

TEXTS = ("text", "contents", "content", "document", "passage", "query")
"""Names of the column of texts."""

Paths = str | Path | list[str]


class Row(NamedTuple):
    """A text with its id."""

    id: str
    text: str
    place: str
    """Position as "FILE:LINE"."""


def texts(paths: Paths) -> Iterator[tuple[str, str]]:
    """Yield the id and text of every row of files, in their order and in bounded memory.

    The id is the column `_id`, `id`, `docid` or the like, and without such a column the number of
    the line. The text is the column `text`, `contents` or the like. A `title` that is not empty
    comes before it, joined by a space, as in BEIR's evaluation. A `.tsv` without a header, such as
    MS MARCO's, has the id in the first column and the text in the second. Texts may be empty, as
    some of BEIR's are.

    Args:
        paths: a file, a pattern, or several, of the formats that `tasks.read` reads.

    Raises:
        UserError: a path that matches nothing, or damaged rows, after all others.
    """
    problems = Problems()
    yield from ((row.id, row.text) for row in rows(paths, problems))
    problems.check()


def rows(paths: Paths, problems: Problems) -> Iterator[Row]:
    """Yield rows as `texts` does, with their places; problems are collected."""
    written = [paths] if isinstance(paths, str | Path) else paths
    for path in [match.path for each in written for match in matches(each)]:
        with problems.at(path):
            if file_type(path).format == "tsv" and _has_no_header(path):
                yield from _pairs(path, problems)
                continue
        for record in stream([path], problems):
            with problems.at(record.place):
                yield row_of(record)


def read_texts(
    paths: Paths, wanted: Iterable[str] | None = None, problems: Problems | None = None
) -> dict[str, str]:
    """Read texts by id.

    Args:
        paths: as those of `texts`.
        wanted: ids to keep; None keeps all.
        problems: collects the problems; None raises them.

    Raises:
        UserError: a path that matches nothing, damaged rows, or an id of several rows.
    """
    own = Problems() if problems is None else problems
    keep = None if wanted is None else {*wanted}
    table: dict[str, str] = {}
    for row in rows(paths, own):
        if keep is not None and row.id not in keep:
            continue
        if row.id in table:
            own.add(row.place, _repeated(row.id))
        table.setdefault(row.id, row.text)
    if problems is None:
        own.check()
    return table


def survey(
    paths: Paths,
    needed: Iterable[tuple[str, str]] = (),
    check: Callable[[str], None] = lambda identifier: None,
) -> int:
    """Read all rows of a corpus once, before long work, and count them.

    Args:
        paths: as those of `texts`.
        needed: ids that the corpus must have, each with the place that names it.
        check: raises `UserError` for ids that what follows cannot use.

    Raises:
        UserError: a path that matches nothing; or all problems together: damaged rows, an id of
            several rows, ids that are missing or that `check` refuses.
    """
    problems = Problems()
    missing, count = dict(needed), 0
    for row in unique(paths, problems):
        missing.pop(row.id, None)
        count += 1
        with problems.at(row.place):
            check(row.id)
    for identifier, place in missing.items():
        problems.add(place, missing_id(identifier, paths))
    problems.check()
    return count


def unique(paths: Paths, problems: Problems) -> Iterator[Row]:
    """Yield rows as `rows` does, and add those whose id occurred before to the problems at the end.

    Eight bytes are kept for each row; the files are read again only if ids may be repeated.
    """
    digests = array("q")
    for row in rows(paths, problems):
        digests.append(hash(row.id))
        yield row
    values, counts = np.unique(np.frombuffer(digests, np.int64), return_counts=True)
    if suspects := {*values[counts > 1].tolist()}:
        seen: set[str] = set()
        for row in rows(paths, Problems()):
            if hash(row.id) not in suspects:
                continue
            if row.id in seen:
                problems.add(row.place, _repeated(row.id))
            seen.add(row.id)


def distinct(identifiers: Sequence[str]) -> list[str]:
    """The ids of a list. Raises `UserError` if one occurs twice."""
    if repeated := [name for name, n in collections.Counter(identifiers).items() if n > 1]:
        shown = ", ".join(map(quoted, repeated[:5]))
        raise UserError(f"a list has {shown} more than once; each document counts once")
    return [*identifiers]


def missing_id(identifier: str, paths: object) -> str:
    """The problem of an id that a file lacks."""
    shown = ", ".join(map(str, paths)) if isinstance(paths, list) else paths
    return f"id {quoted(identifier)} is not in {shown}"


def quoted(identifier: object) -> str:
    """An id in quotation marks for a message; a text in its place is clipped."""
    return repr(clipped(identifier, 80) if isinstance(identifier, str) else identifier)


def text_of(value: object) -> str:
    """An id as text: numbers are written out.

    Raises:
        UserError: it is neither text nor a whole number, or empty.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not value:
        raise UserError(f"id {quoted(value)} must be text or a whole number")
    return value


def row_of(record: Record) -> Row:
    """The text of a record and its id, without which it is the number of its line; see `texts`."""
    name = next((name for name in IDS if name in record.values), None)
    identifier = record.place.rpartition(":")[2] if name is None else _id(record, name)
    column = next((name for name in TEXTS if name in record.values), None)
    if column is None:
        raise UserError(f"has no 'text'; it has {', '.join(record.values) or 'nothing'}")
    title = _text(record, "title").strip() if "title" in record.values else ""
    text = _text(record, column)
    return Row(identifier, f"{title} {text}".strip() if title else text, record.place)


def _has_no_header(path: str) -> bool:
    """Whether the first line of a table has two fields, none of which is the name of a column."""
    _, line = next(lines(path), (0, ""))
    fields = line.rstrip("\r\n").split("\t") if isinstance(line, str) else []
    return len(fields) == 2 and not {*fields} & {*IDS, *TEXTS}


def _pairs(path: str, problems: Problems) -> Iterator[Row]:
    """The rows of a table of ids and texts without a header."""
    for number, line in lines(path):
        place = f"{path}:{number}"
        with problems.at(place):
            if isinstance(line, UserError):
                raise line
            fields = line.rstrip("\r\n").split("\t")
            if len(fields) == 2:
                yield Row(text_of(fields[0]), fields[1], place)
            elif line.strip():
                raise UserError(f"has {len(fields)} fields; it must have an id and a text")


def _id(record: Record, column: str) -> str:
    return text_of(record.need(column))


def _text(record: Record, column: str) -> str:
    return record.text(column, allow_empty=True)


def _repeated(identifier: str) -> str:
    return f"id {quoted(identifier)} occurs before"

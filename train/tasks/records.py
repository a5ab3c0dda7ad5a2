"""Records: the values of a line or row of a file, its place, and problems collected over many."""

import contextlib
import dataclasses
import math
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from modernbert_jax.errors import UserError

from ..corpus.sources.line_records import is_missing, value_at
from . import cells

SHOWN = 5
"""Problems that one message lists; it counts the others."""

LabelNames = dict[str, tuple[str, ...]]
"""Label names that files declare, by column."""


@dataclasses.dataclass(frozen=True)
class Record:
    """A line or row, with values by column."""

    place: str
    """Position as "FILE:LINE"; rows of Parquet and Arrow count from 1."""
    values: Mapping[str, Any]

    def get(self, column: str) -> Any:
        """The value, or None if it is missing. Dots lead into objects: "answers.text"."""
        return value_at(self.values, column)

    def need(self, column: str) -> Any:
        """The value. Raises `UserError` that lists the columns if it is missing."""
        value = self.get(column)
        if value is None and column in self.values:
            raise UserError(f"{column!r} is empty")
        if value is None:
            raise UserError(f"has no {column!r}; it has {', '.join(self.values) or 'nothing'}")
        return value

    def text(self, source: str, allow_empty: bool = False) -> str:
        """The text of a column, or of a template such as "{question} {answer}"."""
        if "{" not in source:
            return self._text(source, allow_empty)
        parts = string.Formatter().parse(source)
        return "".join(
            before + ("" if column is None else self._text(column, allow_empty))
            for before, column, _, _ in parts
        )

    def _text(self, column: str, allow_empty: bool) -> str:
        value = self.get(column) if allow_empty else self.need(column)
        if value is None:
            return ""
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str):
            raise UserError(f"{column!r} is {_short(value)}; it must be text")
        if not allow_empty and not value.strip():
            raise UserError(f"{column!r} is empty")
        return value

    def number(self, column: str) -> float:
        """A finite number, which may be written as text."""
        value = self.need(column)
        with contextlib.suppress(ValueError, OverflowError):
            plain = isinstance(value, int | float | str) and not isinstance(value, bool)
            if plain and math.isfinite(number := float(value)):
                return number
        raise UserError(f"{column!r} is {_short(value)}; it must be a finite number")

    def list(self, column: str) -> list[Any]:
        """A list without missing values.

        Text (as in CSV) may hold one as JSON or as Python prints it, or words between spaces.
        """
        value = self.need(column)
        if isinstance(value, str):
            try:
                listed = cells.parse_list(value)
            except UserError as error:
                raise UserError(f"{column!r} is {_short(value)}, which {error}") from None
            value = value.split() if listed is None else listed
        if not isinstance(value, list | tuple):
            raise UserError(f"{column!r} is {_short(value)}; it must be a list")
        if any(map(is_missing, value)):
            raise UserError(f"{column!r} is {_short(value)}; a value is missing in it")
        return [*value]


class Records(Sequence[Record]):
    """All records of some files, in order."""

    def __init__(self, records: Sequence[Record], names: Mapping[str, Sequence[str]] | None = None):
        """Collect records.

        Args:
            records: The records. Values of columns in `names` are names already, not numbers.
            names: Label names that the files declare, by column.
        """
        self._records = list(records)
        self.names: LabelNames = {column: tuple(n) for column, n in (names or {}).items()}

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Records(self._records[index], self.names)
        return self._records[index]

    def __len__(self) -> int:
        return len(self._records)


class Problems:
    """Collects problems of records, in order to report all of them at once."""

    def __init__(self):
        self._places: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._places.values()))

    def add(self, place: str, problem: str) -> None:
        """Add a problem of a file or record."""
        self._places.setdefault(problem, []).append(place)

    @contextlib.contextmanager
    def at(self, place: str) -> Iterator[None]:
        """Add a `UserError` of the block instead of raising it."""
        try:
            yield
        except UserError as error:
            self.add(place, str(error))

    def check(self) -> None:
        """Raise `UserError` with the first problems and the number of the others, if any.

        A problem of many records is said once, with the first place and the number of the others.
        """
        if not self._places:
            return
        lines = [
            f"{places[0]}: {problem}"
            + (f" (and {len(places) - 1:,} more like this)" if len(places) > 1 else "")
            for problem, places in self._places.items()
        ]
        more = sum(map(len, list(self._places.values())[SHOWN:]))
        rest = [f"and {more:,} more"] if more > 0 else []
        raise UserError("; ".join(lines[:SHOWN] + rest))


def columns_of(source: str) -> list[str]:
    """The columns of a template such as "{question} {answer}"; a plain name is its own column.

    Raises:
        UserError: a template with anything but columns in its braces.
    """
    if "{" not in source:
        return [source]
    try:
        parts = [
            (column, spec, conversion)
            for _, column, spec, conversion in string.Formatter().parse(source)
            if column is not None
        ]
    except ValueError as error:
        raise UserError(f"template {source!r}: {error}") from None
    columns = [column for column, *_ in parts]
    if any(spec or conversion for _, spec, conversion in parts) or not all(columns):
        raise UserError(f"template {source!r}: braces must hold the name of a column and no more")
    return columns


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."

"""Label names: how files write them, their order, and the index of a value."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.text import check_name

from .cells import parse_list

LONGEST = 1000
"""Bytes of a name at most."""

MISSING = frozenset(
    (
        *("nan", "NaN", "-nan", "-NaN", "NaT", "<NA>", "NA", "N/A", "n/a", "#NA", "#N/A"),
        *("#N/A N/A", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "NULL", "null", "None"),
    )
)
"""Texts that pandas writes, or reads, as missing values."""

_LISTED = 12
"""Names that a message lists; of more it gives the number."""


def name(value: Any) -> str:
    """A label's name: true and false as in JSON, whole numbers without a decimal point."""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str):
        return check_name(value, "label", LONGEST)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    raise UserError(f"label is {value!r}; it must be a name or a number")


def found(value: Any) -> str:
    """The name of a label that only the training data name.

    Raises:
        UserError: one of `MISSING`, or a list in the cell of a table.
    """
    label = name(value).strip()
    if label.startswith("[") and _is_list(label):
        raise UserError(f"label is {label!r}, a list; the task for these is multilabel")
    if label in MISSING or not label:
        raise UserError(
            f"label is {label!r}, as missing values are written; remove the record, or name all"
            " labels in the task's labels"
        )
    return name(value)


def ordered(names: Iterable[str], column: str) -> tuple[str, ...]:
    """Each name that was found once: whole numbers by value, anything else alphabetically.

    Raises:
        UserError: the names are numbers with fractions, which no one classifies.
    """
    names = {*names}
    numbers = [_number(label) for label in sorted(names)]
    values = [n for n in numbers if n is not None]
    fractions = [n for n in values if not n.is_integer()]
    if fractions and len(values) == len(numbers):
        raise UserError(
            f"column {column!r} holds numbers such as {fractions[0]}; the task for these is"
            " regression. To classify, name all labels in the task's labels"
        )
    return tuple(sorted(names, key=int if all(map(_is_number, names)) else None))


def check(names: Sequence[str], least: int = 1) -> None:
    """Raise `UserError` for repeated names, empty ones, or fewer than `least`."""
    repeated = sorted(n for n, count in Counter(names).items() if count > 1)
    if repeated:
        raise UserError(f"labels holds {', '.join(repeated)} more than once")
    if "" in names:
        raise UserError("labels holds an empty name; give every label one")
    for label in names:
        check_name(label, "labels", LONGEST)
    if 0 < len(names) < least:
        raise UserError(f"labels holds only {', '.join(names)}; {least} or more are needed")


class Index(Mapping[str, int]):
    """Maps a value in a file to the index of its label."""

    def __init__(self, names: Sequence[str]):
        """Index these names, which are in the order of the classifier's outputs."""
        self.names = tuple(names)
        self._places = {n: i for i, n in enumerate(self.names)}
        self.by_number = not any(map(_is_number, self.names))
        """Whether a number is an index; where names are numbers, it must be a name."""

    def __getitem__(self, value: Any) -> int:
        """Look up a name, or a number where no name is one. Raises `UserError` with all names."""
        key = name(value)
        if key in self._places:
            return self._places[key]
        if self.by_number and isinstance(value, bool):
            key = str(int(value))
        if self.by_number and key.isdecimal() and int(key) < len(self.names):
            return int(key)
        more = f", ... ({len(self)} in all)" if len(self) > _LISTED else ""
        raise UserError(f"label {key!r} is not one of {', '.join(self.names[:_LISTED])}{more}")

    def __iter__(self):
        return iter(self._places)

    def __len__(self):
        return len(self._places)


class Labelled:
    """Base of tasks with one output per label. It precedes `Task` among a class's bases."""

    labels: tuple[str, ...]

    @property
    def outputs(self) -> int:
        return len(self.labels)

    @property
    def label_names(self) -> tuple[str, ...]:
        return self.labels

    @cached_property
    def _index(self) -> Index:
        return Index(self.labels)


def _is_list(text: str) -> bool:
    try:
        return parse_list(text) is not None
    except UserError:
        return False


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()

"""Label names: how files write them, in which order they count, and which one a value is."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from modernbert_jax.errors import UserError


def name(value: Any) -> str:
    """A label's name: true and false as in JSON, whole numbers without a decimal point."""
    if isinstance(value, bool):
        return json.dumps(value)
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, str | int | float):
        return str(value)
    raise UserError(f"label is {value!r}; it must be a name or a number")


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: whole numbers by value, anything else by the alphabet."""
    names = {*names}
    return tuple(sorted(names, key=int if all(map(_is_number, names)) else None))


def check(names: Sequence[str], least: int = 1) -> None:
    """Raises `UserError` for names given twice, empty ones, or fewer than `least`."""
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise UserError(f"labels holds {', '.join(twice)} more than once")
    if "" in names:
        raise UserError("labels holds an empty name; give every label one")
    if 0 < len(names) < least:
        raise UserError(f"labels holds only {', '.join(names)}; {least} or more are needed")


class Index(Mapping[str, int]):
    """From a value in a file to the place of its label."""

    def __init__(self, names: Sequence[str]):
        """For these names, in the order of the classifier's outputs."""
        self.names = tuple(names)
        self._places = {n: i for i, n in enumerate(self.names)}
        self.by_number = not any(map(_is_number, self.names))
        """Whether a number is a place; where names are numbers themselves, it must be one."""

    def __getitem__(self, value: Any) -> int:
        """By name, or by number where no name is one. Raises `UserError` that has all names."""
        found = name(value)
        if found in self._places:
            return self._places[found]
        if self.by_number and isinstance(value, bool):
            found = str(int(value))
        if self.by_number and found.isdecimal() and int(found) < len(self.names):
            return int(found)
        raise UserError(f"label {found!r} is not one of {listing(self.names)}")

    def __iter__(self):
        return iter(self._places)

    def __len__(self):
        return len(self._places)


class Labelled:
    """A task whose outputs are its labels, one each. Comes before `Task` among a class's bases."""

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


def listing(names: Sequence[str], most: int = 12) -> str:
    """The names for a message; of many, the first and their number."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, ... ({len(names)} in all)"


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdecimal()

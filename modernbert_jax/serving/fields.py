"""The JSON body of a request, field by field, with checks.

Unknown fields are ignored, because clients send many that only other servers know.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import orjson

from .faults import Fault, invalid

Input = str | list[int]
"""A text, or the ids of its tokens."""

T = TypeVar("T")


class Fields:
    """The fields of an object in a request."""

    def __init__(self, values: Mapping[str, Any], prefix: str = ""):
        """The fields of `values`, whose names in messages begin with `prefix`."""
        self._values, self._prefix = values, prefix

    @classmethod
    def parse(cls, body: bytes) -> "Fields":
        """The fields of a body. Raises `Fault` if it is no JSON object."""
        try:
            values = orjson.loads(body)
        except ValueError:  # its message quotes the body
            raise Fault(400, "the body is not valid JSON in UTF-8") from None
        if not isinstance(values, dict):
            raise Fault(400, "the body must be a JSON object")
        return cls(values)

    def __contains__(self, name: str) -> bool:
        """Whether a field is there and not null."""
        return self._values.get(name) is not None

    def get(self, name: str, kind: type[T], default: T | None = None) -> T:
        """A field's value; `default` where it is missing or null, if there is one."""
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        if type(value) is not kind:
            names = {str: "a string", bool: "true or false", int: "an integer", list: "a list"}
            raise invalid(self._prefix + name, f"must be {names[kind]}")
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        """A field's value, or None where it is missing or null."""
        return self.get(name, kind) if name in self else None

    def choice(self, name: str, choices: Sequence[str], default: str) -> str:
        """A field's value, one of `choices`; upper and lower case are the same."""
        value = self.get(name, str, default).lower()
        if value not in choices:
            raise invalid(self._prefix + name, f"must be one of {', '.join(choices)}")
        return value

    def count(self, name: str, most: int, least: int = 1) -> int | None:
        """A field's value from `least` to `most`, or None where it is missing or null."""
        value = self.optional(name, int)
        if value is not None and not least <= value <= most:
            raise invalid(self._prefix + name, f"must be {least:,} to {most:,}")
        return value

    def object(self, name: str) -> "Fields":
        """The fields of an object in a field; none where it is missing or null."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, dict):
            raise invalid(self._prefix + name, "must be an object")
        return Fields(value or {}, f"{self._prefix}{name}.")

    def raw(self, name: str) -> Any:
        """A field's value as it is, or None."""
        return self._values.get(name)

    def is_object(self, name: str) -> bool:
        """Whether a field holds an object."""
        return isinstance(self._values.get(name), dict)

    def texts(self, name: str, may_be_empty: bool = False) -> list[str]:
        """A list of texts, at least one unless it may be empty."""
        value = self._values.get(name)
        if isinstance(value, list) and (value or may_be_empty) and all(map(_is_text, value)):
            return value
        what = "strings" if may_be_empty else "at least one string"
        raise invalid(self._prefix + name, f"must be a list of {what}")

    def inputs(self, name: str) -> tuple[list[Input], bool]:
        """Texts or lists of token ids, and whether it was a single one outside a list."""
        value: Any = self._values.get(name)
        if type(value) is str or _are_ids(value):
            return [value], True
        several = isinstance(value, list) and bool(value)
        if several and (all(type(x) is str for x in value) or all(map(_are_ids, value))):
            return value, False
        raise invalid(
            self._prefix + name,
            "must be a string, a list of strings, a list of token ids, or a list of such lists;"
            " lists must not be empty",
        )

    def sequences(self, name: str) -> tuple[list[str | tuple[str, str]], bool]:
        """Texts or pairs of texts of a classifier, and whether it was a single one.

        A list of strings is one text or a pair; several are a list of such lists.
        """
        value = self._values.get(name)
        if type(value) is str:
            return [value], True
        if isinstance(value, list) and value:
            if _is_sequence(value):
                return [_sequence(value)], True
            if all(map(_is_sequence, value)):
                return [_sequence(x) for x in value], False
        raise invalid(
            self._prefix + name,
            "must be a string, a pair of strings, or a list of lists of one or two strings",
        )


def _is_text(value: Any) -> bool:
    return type(value) is str


def _are_ids(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(type(x) is int for x in value)


def _is_sequence(value: Any) -> bool:
    return isinstance(value, list) and len(value) in (1, 2) and all(type(x) is str for x in value)


def _sequence(value: list[str]) -> str | tuple[str, str]:
    return value[0] if len(value) == 1 else (value[0], value[1])

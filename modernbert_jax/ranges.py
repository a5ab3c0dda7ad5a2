"""Ranges of numbers: stated in the types of dataclass fields, and checked by one function.

`seed: Seed = 0` has the type `int` and the range of seeds. `check` in `__post_init__` holds the
fields to their ranges, in tuples, dictionaries and optional fields too.
"""

import dataclasses
import functools
import numbers
import types
import typing
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Annotated, Any

from modernbert_jax.errors import UserError, clipped

INT32 = 2**31
FLOAT32 = 2.0**128
"""Numbers from which on int32 and float32, in which runs compute, overflow."""


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; NaN is in none."""

    low: float
    high: float
    above: bool = False
    """Whether `low` itself is out of range."""
    below: bool = False
    """Whether `high` itself is out of range."""
    also: int | None = None
    """A number outside that is allowed."""

    def __contains__(self, value: float) -> bool:
        if value == self.also:
            return True
        high = value < self.high if self.below else value <= self.high
        return high and (value > self.low if self.above else value >= self.low)

    def __str__(self) -> str:
        also = "" if self.also is None else f", or {self.also}"
        if self.low <= -FLOAT32:
            return "finite"
        if self.high >= INT32 and self.high != 2**32:
            return (f"more than {self.low:g}" if self.above else f"{self.low:g} or more") + also
        if not self.above and not self.below:
            return f"between {self.low:g} and {self.high:,}{also}"
        low = f"more than {self.low:g}" if self.above else f"at least {self.low:g}"
        high = "2^32" if self.high == 2**32 else f"{self.high:,g}"
        return f"{low} and {'below' if self.below else 'at most'} {high}{also}"


Count = Annotated[int, Range(1, INT32, below=True)]
"""A whole number of 1 or more."""
Natural = Annotated[int, Range(0, INT32, below=True)]
"""A whole number of 0 or more."""
Large = Annotated[int, Range(1, 2**53)]
"""A whole number of 1 or more that float64 represents, such as the tokens of a run."""
Seed = Annotated[int, Range(0, 2**32, below=True)]
"""A seed, from 0 to 2^32 - 1."""
Length = Annotated[int, Range(8, 2**20)]
"""Tokens of a row or sequence."""
Positive = Annotated[float, Range(0, FLOAT32, above=True, below=True)]
"""A finite number above 0."""
NonNegative = Annotated[float, Range(0, FLOAT32, below=True)]
"""A finite number of 0 or more."""
Finite = Annotated[float, Range(-FLOAT32, FLOAT32, above=True, below=True)]
"""A finite number."""
Share = Annotated[float, Range(0, 1)]
"""A share from 0 to 1."""
Rate = Annotated[float, Range(0, 1, below=True)]
"""A rate, such as dropout's, below 1."""
Part = Annotated[float, Range(0, 1, above=True, below=True)]
"""A share that is neither nothing nor all."""
Fraction = Annotated[float, Range(0, 1, above=True)]
"""A share that is not nothing."""


def check(values: Any, prefix: str = "", name: Callable[[str], str] = str) -> None:
    """Raise `UserError` for the numbers of a dataclass that are out of range.

    Args:
        values: an instance of a dataclass; its fields that are dataclasses check themselves.
        prefix: before the names in the message.
        name: what the message calls a field.
    """
    hints = hints_of(values.__class__)
    problems = [
        problem
        for field in dataclasses.fields(values)
        for problem in _problems(
            prefix + name(field.name), hints[field.name], getattr(values, field.name)
        )
    ]
    if problems:
        raise UserError(clipped("; ".join(problems)))


@functools.cache
def hints_of(kind: Hashable) -> dict[str, Any]:
    """The types of a dataclass's fields, with their ranges."""
    return typing.get_type_hints(kind, include_extras=True)


def _problems(name: str, hint: Any, value: Any) -> Iterator[str]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        ranges = [x for x in hint.__metadata__ if isinstance(x, Range)]
        if not ranges:
            yield from _problems(name, args[0], value)
        elif problem := _problem(name, args[0], ranges[0], value):
            yield problem
    elif origin in (typing.Union, types.UnionType) and value is not None:
        for arg in args:
            if arg is not type(None):
                yield from _problems(name, arg, value)
    elif origin is tuple and isinstance(value, tuple | list):
        for i, item in enumerate(value):
            yield from _problems(f"{name}.{i}", args[0], item)
    elif origin is dict and isinstance(value, Mapping):
        for key, item in value.items():
            yield from _problems(f"{name}.{key}", args[1], item)


def _problem(name: str, kind: type, range_: Range, value: Any) -> str | None:
    wanted: Any = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool) or not isinstance(value, wanted):
        what = "a whole number" if kind is int else "a number"
        return f"{name} is {value!r}; it must be {what}"
    if value in range_:
        return None
    if value >= range_.high and range_.low < INT32 <= range_.high != 2**32:
        return f"{name} is {value:g}; it is too large"
    return f"{name} is {value}; it must be {range_}"

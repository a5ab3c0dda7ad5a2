"""Convert dataclasses to JSON and back, strict about names and types."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from modernbert_jax.errors import UserError, did_you_mean


def to_json(config: Any) -> dict[str, Any]:
    """Convert a dataclass, with nested ones, to a JSON object."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_json(
    kind: type, value: Any, where: str = "config", given: Mapping[str, Any] | None = None
) -> Any:
    """Convert JSON to a dataclass of type `kind`, strict about names and types.

    Args:
        kind: the dataclass.
        value: its fields.
        where: name of the value in errors.
        given: values of fields that are not read from `value`.

    Raises:
        UserError: an unknown key, with the nearest known one, or a value of the wrong type.
    """
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} is {value!r}; it must be an object")
        hints = typing.get_type_hints(kind)
        fields = {f.name: f for f in dataclasses.fields(kind)}
        known = dict(given or {})
        for key in value:
            if key not in fields:
                raise UserError(f"{where}: unknown key {key!r}; {did_you_mean(key, fields)}")
        for name, field in fields.items():
            present = name in value or name in known
            if not present and field.default is field.default_factory is dataclasses.MISSING:
                raise UserError(f"{where}: {name!r} is missing")
        read = {k: from_json(hints[k], v, f"{where}.{k}") for k, v in value.items()}
        return kind(**read, **known)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(from_json(args[0], v, f"{where}.{i}") for i, v in enumerate(value))
    if origin is dict and isinstance(value, Mapping):
        return {k: from_json(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return from_json(next(a for a in args if a is not type(None)), value, where)
    if origin is Literal and value in args:
        return value
    if kind is float and type(value) is int:
        return float(value)
    if origin is None and type(value) is kind:
        return value
    expected = (
        " or ".join(map(repr, args)) if origin is Literal else getattr(kind, "__name__", kind)
    )
    raise UserError(f"{where} is {value!r}; it must be {expected}")


def differences(a: Any, b: Any, where: str = "") -> list[str]:
    """Dotted keys at which two JSON values differ, with both values."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        keys = [*a, *(k for k in b if k not in a)]
        prefix = f"{where}." if where else ""
        return [d for k in keys for d in differences(a.get(k), b.get(k), f"{prefix}{k}")]
    if isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        return [
            d
            for i, (x, y) in enumerate(zip(a, b, strict=True))
            for d in differences(x, y, f"{where}.{i}")
        ]
    return [] if a == b else [f"{where}: {a!r} -> {b!r}"]

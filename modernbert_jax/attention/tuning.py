"""Tuned choices per device: `tuning.json`, which a file of the user's own measurements overrides.

    {"NVIDIA H100": {"sliding": {"implementation": "pallas_triton"},
                     "full 64 bfloat16": {"pallas_triton": {"fwd_q": 128, "fwd_k": 64}}}}

Devices are named by a prefix of jax's `device_kind`; the longest match counts. An entry is named by
the kind of layer ("sliding" or "full"), optionally followed by the width of heads and the dtype.
More specific entries override others, and the user's file overrides ours. The environment variable
`MODERNBERT_JAX_TUNING` names that file; `make bench-kernels` writes one for its device.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import read_json

VARIABLE = "MODERNBERT_JAX_TUNING"
KINDS = ("sliding", "full")


@dataclasses.dataclass(frozen=True)
class Entry:
    """The best implementation and options for some calls on a device."""

    implementation: str | None = None
    options: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    """Keyword arguments by implementation."""

    def options_of(self, implementation: str) -> tuple[tuple[str, int], ...]:
        """Keyword arguments of an implementation; empty if it was not tuned."""
        return dict(self.options).get(implementation, ())

    def over(self, other: "Entry") -> "Entry":
        """This entry, with the other one's values where it has none."""
        options = dict(other.options) | dict(self.options)
        return Entry(self.implementation or other.implementation, tuple(options.items()))


def lookup(device_kind: str, kind: str, head_dim: int | None = None, dtype: str = "") -> Entry:
    """The entry for a kind of layer, "sliding" or "full", on a device; empty without one.

    Raises:
        UserError: an unusable file.
    """
    result = Entry()
    for table in (_read(Path(__file__).with_name("tuning.json")), _user_table()):
        devices = [name for name in table if device_kind.startswith(name)]
        entries = table[max(devices, key=len)] if devices else {}
        for name in (kind, f"{kind} {head_dim}", f"{kind} {head_dim} {dtype}"):
            result = entries.get(name, Entry()).over(result)
    return result


def parse(table: Any, where: str) -> dict[str, dict[str, Entry]]:
    """Entries of a tuning file by device and name. Raises `UserError` that names `where`."""
    return {
        device: {
            _check_name(name, f"{where}: {device}"): _entry(value, f"{where}: {device}.{name}")
            for name, value in _mapping(entries, f"{where}: {device}").items()
        }
        for device, entries in _mapping(table, where).items()
    }


def _user_table() -> dict[str, dict[str, Entry]]:
    path = os.environ.get(VARIABLE)
    return _read(Path(path)) if path else {}


@functools.lru_cache
def _read(path: Path) -> dict[str, dict[str, Entry]]:
    return parse(read_json(path), str(path))


def _check_name(name: str, where: str) -> str:
    kind, *more = name.split(" ")
    if kind not in KINDS or len(more) > 2 or (more and not more[0].isdecimal()):
        raise UserError(
            f"{where}.{name}: an entry is named by {' or '.join(KINDS)}, then if wanted the "
            "width of heads, then the type, as in 'full 64 bfloat16'"
        )
    return name


def _entry(value: Any, where: str) -> Entry:
    value = dict(_mapping(value, where))
    implementation = value.pop("implementation", None)
    if implementation is not None and not isinstance(implementation, str):
        raise UserError(f"{where}.implementation is {implementation!r}; it must be a name")
    for name, options in value.items():
        for option, number in _mapping(options, f"{where}.{name}").items():
            if type(number) is not int or number < 1:
                raise UserError(
                    f"{where}.{name}.{option} is {number!r}; a positive integer is needed"
                )
    options = tuple((name, tuple(sorted(numbers.items()))) for name, numbers in value.items())
    return Entry(implementation, options)


def _mapping(value: Any, where: str) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON object is needed, not {type(value).__name__}")
    return value

"""Tuned choices per device: `tuning.json`, and over it a file that a user measured.

    {"NVIDIA H100": {"sliding": {"implementation": "pallas_triton"},
                     "full 64 bfloat16": {"pallas_triton": {"fwd_q": 128, "fwd_k": 64}}}}

Devices are named by the beginning of jax's `device_kind`; of several, the longest counts. An entry
is named by the kind of layer ("sliding" or "full"), then if it is meant for no other the width of
heads and then the type. Several may apply: what a more special one says wins, and whatever the
user's file says wins over ours. The environment variable `MODERNBERT_JAX_TUNING` names that file;
`make bench-kernels` writes one for the device it runs on.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import read_json

VARIABLE = "MODERNBERT_JAX_TUNING"
KINDS = ("sliding", "full")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What was found best for some calls on one device."""

    implementation: str | None = None
    options: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()
    """Implementation to keyword arguments."""

    def options_of(self, implementation: str) -> tuple[tuple[str, int], ...]:
        """Keyword arguments for an implementation; none if it was not tuned."""
        return dict(self.options).get(implementation, ())

    def over(self, other: "Entry") -> "Entry":
        """This entry, and where it says nothing the other."""
        options = dict(other.options) | dict(self.options)
        return Entry(self.implementation or other.implementation, tuple(options.items()))


def lookup(device_kind: str, kind: str, head_dim: int | None = None, dtype: str = "") -> Entry:
    """What is known about a kind of layer, "sliding" or "full", on a device.

    An empty entry if that is nothing. Raises UserError if a file cannot be used.
    """
    found = Entry()
    for table in (_read(Path(__file__).with_name("tuning.json")), _user_table()):
        devices = [name for name in table if device_kind.startswith(name)]
        entries = table[max(devices, key=len)] if devices else {}
        for name in (kind, f"{kind} {head_dim}", f"{kind} {head_dim} {dtype}"):
            found = entries.get(name, Entry()).over(found)
    return found


def parse(table: Any, where: str) -> dict[str, dict[str, Entry]]:
    """The entries of a tuning file by device and name. Raises UserError that says `where`."""
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
    options = tuple((name, tuple(sorted(given.items()))) for name, given in value.items())
    return Entry(implementation, options)


def _mapping(value: Any, where: str) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a JSON object is needed, not {type(value).__name__}")
    return value

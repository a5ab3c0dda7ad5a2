"""Tuned choices per device: `tuning.json`, and over it a file that a user measured.

    {"NVIDIA H100": {"sliding": {"implementation": "pallas_triton",
                                 "pallas_triton": {"block_q": 64, "block_k": 64}},
                     "full": {…}}}

Devices are named by the beginning of jax's `device_kind`; of several, the longest counts. The
environment variable `MODERNBERT_JAX_TUNING` names the user's file, which wins over ours entry by
entry. `make bench-kernels` prints one for the device it ran on.
"""

import dataclasses
import functools
import os
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.files import read_json

VARIABLE = "MODERNBERT_JAX_TUNING"
KINDS = ("sliding", "full")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What was found best for one kind of layer on one device."""

    implementation: str | None = None
    options: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()

    def options_of(self, implementation: str) -> tuple[tuple[str, int], ...]:
        """Keyword arguments for an implementation; none if it was not tuned."""
        return dict(self.options).get(implementation, ())


def lookup(device_kind: str, kind: str) -> Entry:
    """The entry for a device and a kind of layer, "sliding" or "full"; an empty one if none."""
    found = Entry()
    for table in (_read(Path(__file__).with_name("tuning.json")), _user_table()):
        names = [name for name in table if device_kind.startswith(name)]
        entry = table[max(names, key=len)].get(kind) if names else None
        if entry is not None:
            options = dict(found.options) | dict(entry.options)
            found = Entry(entry.implementation or found.implementation, tuple(options.items()))
    return found


def _user_table() -> dict[str, dict[str, Entry]]:
    path = os.environ.get(VARIABLE)
    return _read(Path(path)) if path else {}


@functools.lru_cache
def _read(path: Path) -> dict[str, dict[str, Entry]]:
    table = read_json(path)
    return {
        device: {kind: _entry(value, f"{path}: {device}.{kind}") for kind, value in kinds.items()}
        for device, kinds in _mapping(table, str(path)).items()
        if _check_kinds(kinds, f"{path}: {device}")
    }


def _check_kinds(kinds: Any, where: str) -> bool:
    for kind in _mapping(kinds, where):
        if kind not in KINDS:
            raise UserError(f"{where}.{kind}: a kind of layer is one of {', '.join(KINDS)}")
    return True


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

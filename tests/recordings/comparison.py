"""Compares two recordings: every fact that differs, is missing, or is new."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ENVIRONMENT = "environment.json"
"""File that may differ; it explains differences."""

_SHOWN = 40
"""Groups of differences that are shown of one file, unless all are asked for."""

_MISSING = "(missing)"


class Difference(NamedTuple):
    """A fact that is not the same in both recordings."""

    place: str
    before: Any
    after: Any

    @property
    def group(self) -> str:
        """The place without the numbers of list entries."""
        return re.sub(r"\[\d+\]", "[*]", self.place)


def compare(before: Path, after: Path, show_all: bool = False, ignore: str = "") -> int:
    """Print the differences of two folders.

    Args:
        before: folder of a recording.
        after: folder of another one.
        show_all: show every difference by itself.
        ignore: regular expression; differences whose place contains a match do not count.

    Returns:
        0 where there are no differences, else 1.
    """
    names = sorted({path.name for folder in (before, after) for path in folder.glob("*.json")})
    for difference in differences(_read(before, ENVIRONMENT), _read(after, ENVIRONMENT)):
        print(f"note: recorded with another {_shown(difference)}")
    total = 0
    for name in names:
        if name == ENVIRONMENT:
            continue
        changes = list(differences(_read(before, name), _read(after, name)))
        if ignore:
            changes = [d for d in changes if not re.search(ignore, f"{name}{d.place}")]
        count = sum(1 for _ in _leaves(_read(before, name)))
        print(f"{name}: {count:,} facts, {len(changes):,} differ")
        _show(changes, len(changes) if show_all else _SHOWN, show_all)
        total += len(changes)
    print("equal" if not total else f"{total:,} differences")
    return int(total > 0)


def differences(before: Any, after: Any, place: str = "") -> Iterator[Difference]:
    """Every difference of two JSON values, with its place."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in [*before, *(key for key in after if key not in before)]:
            pair = before.get(key, _MISSING), after.get(key, _MISSING)
            yield from differences(*pair, f"{place}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for i, pair in enumerate(zip(before, after, strict=True)):
            yield from differences(*pair, f"{place}[{i}]")
    elif before != after:
        yield Difference(place, before, after)


def _leaves(value: Any) -> Iterator[Any]:
    """The single facts of a JSON value."""
    if not isinstance(value, dict | list):
        yield value
    for child in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from _leaves(child)


def _read(folder: Path, name: str) -> Any:
    path = folder / name
    return json.loads(path.read_text()) if path.is_file() else _MISSING


def _show(changes: list[Difference], most: int, each: bool) -> None:
    groups: dict[str, list[Difference]] = {}
    for difference in changes:
        groups.setdefault(difference.place if each else difference.group, []).append(difference)
    for members in list(groups.values())[:most]:
        more = f" (and {len(members) - 1:,} more like it)" if len(members) > 1 else ""
        print(f"  {_shown(members[0])}{more}")
    if len(groups) > most:
        print(f"  ... and {len(groups) - most:,} other places; --all shows them")


def _shown(difference: Difference) -> str:
    before, after = (_readable(x) for x in (difference.before, difference.after))
    return f"{difference.place.lstrip('/')}: {before} -> {after}"


def _readable(value: Any) -> str:
    """A fact in at most 120 characters; numbers in decimals."""
    if isinstance(value, str) and re.fullmatch(r"-?0x[01]\.[0-9a-f]+p[+-]\d+", value):
        return repr(float.fromhex(value))
    text = value if value == _MISSING else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."

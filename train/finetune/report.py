"""A run's result as text: every metric of the task, best and last."""

from collections.abc import Mapping
from typing import Any

_COLUMNS = {"best": "best", "last": "last", "tuned": "tuned", "test": "test"}


def text(result: Mapping[str, Any]) -> str:
    """A table with a line for each metric."""
    found = {name: result[name]["metrics"] for name in _COLUMNS if name in result}
    if not found:
        return "nothing was measured: there are no validation examples"
    names = list(dict.fromkeys(name for metrics in found.values() for name in metrics))
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{_COLUMNS[name]:>10}" for name in found)]
    for name in names:
        cells = (metrics.get(name) for metrics in found.values())
        lines.append(f"{name:{width}}" + "".join(map(_cell, cells)))
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return " " * 10 if value is None else f"{value:10.4f}"

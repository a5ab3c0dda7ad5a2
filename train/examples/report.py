"""Text table of a run's result, with its metrics."""

from collections.abc import Mapping
from typing import Any

_COLUMNS = {"best": "best", "last": "last", "tuned": "tuned", "test": "test"}


def text(result: Mapping[str, Any]) -> str:
    """Format a table with a line for each metric, but those of single data sets: METRIC/DATASET."""
    columns = {name: result[name]["metrics"] for name in _COLUMNS if name in result}
    if not columns:
        return "no metrics: there are no validation examples"
    every = dict.fromkeys(name for metrics in columns.values() for name in metrics)
    names = [name for name in every if "/" not in name]
    width = max(map(len, names))
    lines = [" " * width + "".join(f"{_COLUMNS[name]:>10}" for name in columns)]
    for name in names:
        cells = (metrics.get(name) for metrics in columns.values())
        lines.append(f"{name:{width}}" + "".join(map(_cell, cells)))
    if "best" in result:
        step, exported = result["best"]["step"], result["exported"]
        lines.append(f"best by {result['metric']}: step {step:,}; the {exported} model is exported")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    return " " * 10 if value is None else f"{value:10.4f}"

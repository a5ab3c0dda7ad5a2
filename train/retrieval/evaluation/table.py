"""Results of an evaluation as JSON, or as a table in text or Markdown."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from modernbert_jax.io import tables

from . import protocols
from .active import ACTIVE

UNIT = "(as fractions)"
"""Unit of the metrics of a table, in its heading."""


def table(result: Mapping[str, Any], format: str, names: Sequence[str] = ()) -> str:
    """A result as JSON, or as a table in text or Markdown.

    With a protocol, the published figures of its models stand beside. All are fractions, as in
    JSON and during training, which the heading says.

    Args:
        result: as `evaluate` returns it.
        format: "json", "text" or "markdown".
        names: metrics to show; empty is all.
    """
    if format == "json":
        return json.dumps(result, indent=2)
    sets: dict[str, Mapping[str, Any]] = {**result.get("sets", {}), "mean": result}
    floats = [name for name, value in result.items() if isinstance(value, float)]
    shown = [*names] or [name for name in floats if name not in ACTIVE.values()]
    figures = protocols.PROTOCOLS[result["protocol"]].figures if "protocol" in result else {}
    rows = [[UNIT, *shown, *figures]]
    for name, values in sets.items():
        published = [figures[model].get(name) for model in figures]
        own = [f"{values[metric]:.4f}" for metric in shown]
        rows.append([name, *own, *("" if x is None else f"{x / 100:.3f}" for x in published)])
    if "sets" not in result:
        rows = [["metric", UNIT]] + [[m, f"{result[m]:.4f}"] for m in shown]
    last = [_active_line(result)] if ACTIVE["query"] in result else []
    if format == "text":
        return "\n".join([*tables.lines(rows), *last])
    head, *body = tables.aligned(rows)
    rules = ["-" * max(len(cell) - (i > 0), 2) + ":" * (i > 0) for i, cell in enumerate(head)]
    lines = (f"| {' | '.join(cells)} |" for cells in [head, rules, *body])
    return "\n".join([*lines, *(["", *last] if last else [])])


def _active_line(result: Mapping[str, Any]) -> str:
    query, document = (result[name] for name in ACTIVE.values())
    return f"weights above zero: {query:.1f} of a query, {document:.1f} of a document"

"""A run as Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .registry import GROUPS
from .results import Number, Result

HIDDEN = ("memory",)
"""Groups whose numbers appear in the rows of another group; only what went wrong is shown."""


def markdown(run: Mapping[str, Any], slower: Mapping[str, str] | None = None) -> str:
    """A page with the facts of a run and a table for each group.

    Args:
        run: as `history.record` makes it.
        slower: remarks on results by `key`, from the comparison with an earlier run.
    """
    results = [Result.from_json(r) for r in run["results"]]
    lines = [f"# {run['device']}", "", *facts(run)]
    for group, heading in headings(results):
        some = [r for r in results if r.group == group]
        if group in HIDDEN:
            some = [r for r in some if r.status != "ok"]
        if some:
            lines += ["", f"## {heading}", "", *table(some, slower or {})]
    return "\n".join(lines) + "\n"


def facts(run: Mapping[str, Any]) -> list[str]:
    """The machine and its software as a list."""
    memory = f", {run['memory_bytes'] / 1e9:.1f} GB for a program" if run["memory_bytes"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    return [
        f"- {run['date']} UTC, commit {run['commit'] or 'unknown'}, {run['seconds']:.0f} s",
        f"- {run['devices']} x {run['device']}{memory}; {run['cores']} CPU cores, {run['system']}",
        f"- driver {run['driver'] or 'not told'}; {run['runtime']}",
        f"- Python {run['python']}, {versions}",
    ]


def headings(results: Iterable[Result]) -> list[tuple[str, str]]:
    """Groups that have results, with their headings, in the order of the tables."""
    there = dict.fromkeys(r.group for r in results)
    known = [group for group in GROUPS if group in there]
    return [(g, GROUPS.get(g, g)) for g in [*known, *(g for g in there if g not in known)]]


def table(results: Sequence[Result], slower: Mapping[str, str]) -> list[str]:
    """A line for each result; columns are the labels and numbers that any of them has."""
    labels = _order(r.labels for r in results)
    numbers = _order({f"{n}\0{x.unit}": "" for n, x in r.numbers.items()} for r in results)
    heads = [*(labels or ["part"]), *(_head(*n.split("\0")) for n in numbers), "status"]
    lines = [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for r in results:
        cells = [r.labels.get(name, "") for name in labels] if labels else [r.name]
        if labels and not r.labels:
            cells[0] = r.name
        units = {f"{name}\0{n.unit}": n for name, n in r.numbers.items()}
        cells += [shown(units[n]) if n in units else "" for n in numbers]
        remarks = [r.note, slower.get(key(r), "")]
        cells.append(": ".join([r.status, *(remark for remark in remarks if remark)]))
        lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |")
    return lines


def key(result: Result) -> str:
    """Identifies a result among those of all runs."""
    return f"{result.group}: {result.name}"


def shown(number: Number) -> str:
    """A number without its unit: errors in powers of ten, others to three or four digits."""
    value = number.value
    if value != value:
        return "not finite"
    if not number.unit:
        return f"{value:.1e}" if abs(value) < 0.1 else f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _head(name: str, unit: str) -> str:
    return f"{name}, {unit}" if unit else name


def _order(mappings: Iterable[Mapping[str, Any]]) -> list[str]:
    """All keys, in the order in which they first appear."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))

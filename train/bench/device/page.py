"""`docs/results/hardware.md` and the README's table, made from the runs in the folder beside it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import write_bytes

from . import history, table
from .results import Result

FOLDER = Path("docs/results/hardware")
PAGE = Path("docs/results/hardware.md")
BEGIN, END = "<!-- hardware: begin -->", "<!-- hardware: end -->"
"""Marks in the README, between which the summary stands."""

Runs = Sequence[Mapping[str, Any]]


def read_all(root: Path) -> list[list[dict[str, Any]]]:
    """The runs of each device in a checkout, accelerators first."""
    devices = []
    for path in sorted((root / FOLDER).glob("*.json")):
        name = json.loads(path.read_bytes())[0]["device"]
        devices.append(history.runs(path.parent, name))
    return sorted(devices, key=lambda runs: runs[-1]["platform"] == "cpu")


def page(devices: Sequence[Runs]) -> str:
    """The page: what is verified where, then the newest run of each device in full."""
    lines = [
        "# Verified on hardware",
        "",
        "Made by `modernbert-jax bench device` (`make device`) from the runs in",
        "`docs/results/hardware`; do not edit. A run is added by the command itself in a checkout,",
        "or by `modernbert-jax bench device --record FILE.json` for one that was made elsewhere.",
        "",
        *summary(devices),
    ]
    for runs in devices:
        run, before = runs[-1], runs[-2] if len(runs) > 1 else None
        slower = history.slower(run, before) if before else {}
        text = table.markdown(run, slower)
        lines += ["", *(f"#{line}" if line.startswith("#") else line for line in text.split("\n"))]
        while lines[-1] == "":
            lines.pop()
        if before:
            dates = ", ".join(f"{r['date']} ({r['commit'] or 'unknown'})" for r in runs[:-1])
            lines += ["", f"Earlier runs: {dates}."]
    return "\n".join(lines) + "\n"


def summary(devices: Sequence[Runs]) -> list[str]:
    """A table of devices by groups: how many results are as they should be, and when."""
    lines = []
    if not any(runs[-1]["platform"] != "cpu" for runs in devices):
        lines = ["No run on an accelerator has been recorded yet.", ""]
    if not devices:
        return lines[:-1]
    newest = [runs[-1] for runs in devices]
    results = [Result.from_json(r) for run in newest for r in run["results"]]
    groups = [g for g in table.headings(results) if g[0] not in table.HIDDEN]
    heads = ["newest run", *(run["device"] + _caution(run) for run in newest)]
    lines += [f"| {' | '.join(heads)} |", "|" + " --- |" * len(heads)]
    for group, heading in groups:
        cells = [_counts(run, group) for run in newest]
        lines.append(f"| {heading} | {' | '.join(cells)} |")
    dates = [f"{run['date'].split(' ')[0]}, {run['commit'] or 'unknown'}" for run in newest]
    lines.append(f"| date, commit | {' | '.join(dates)} |")
    return lines


def write(root: Path) -> None:
    """Writes the page, and the summary in the README, of a checkout."""
    devices = read_all(root)
    write_bytes(root / PAGE, page(devices).encode())
    readme = root / "README.md"
    write_bytes(readme, with_summary(readme.read_text(), devices).encode())


def with_summary(readme: str, devices: Sequence[Runs]) -> str:
    """The README with the summary between its marks. Raises `UserError` without them."""
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"README.md: the marks {BEGIN} and {END} are missing")
    return "\n".join([before + begin, *summary(devices), end + after])


def _counts(run: Mapping[str, Any], group: str) -> str:
    """Results of a group by status: "20 ok, 1 failed"."""
    counts: dict[str, int] = {}
    for result in run["results"]:
        if result["group"] == group:
            counts[result["status"]] = counts.get(result["status"], 0) + 1
    return ", ".join(f"{n} {status}" for status, n in counts.items()) or "–"


def _caution(run: Mapping[str, Any]) -> str:
    return " (tiny shapes, interpreted kernels)" if run["platform"] == "cpu" else ""

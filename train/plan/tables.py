"""Plans of the presets on usual machines, for the documentation: python -m ...train.plan.tables.

Compiling takes an hour or two, so results are stored as JSON, among the tests' fixtures because
tests hold the pages to them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from modernbert_jax import configs
from modernbert_jax.io.files import write_bytes, write_json

from .facts import plan
from .program import Compiled
from .topology import absent_devices, topology

CONFIGS = ("base", "large")
TOPOLOGIES = ("h100:8", "v5e-256", "v5p-128")

Plans = list[dict[str, Any]]
"""Facts of one stage each, with "config", "machine" and "stage"."""

_INTRODUCTION = """\
# Plans

Each stage of the presets on three machines, with the lightest rematerialisation and with it the
largest microbatch that fit: the real step of training, compiled by `make plans` for machines that
were not there. Memory is the compiler's account of each device's peak, out of what a program gets;
times are for 40 % of the peak FLOPs, on full rows of one document each. Nothing here has been run.
"""


def main(args: list[str] | None = None) -> None:
    """Plan every stage of `CONFIGS` on each of `TOPOLOGIES`, and write JSON and Markdown.

    Plans that the JSON file already has are not compiled again.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path, default=Path("tests/fixtures/plans.json"))
    parser.add_argument("--markdown", type=Path, default=Path("docs/results/plans.md"))
    options = parser.parse_args(args)
    plans: Plans = json.loads(options.json.read_text()) if options.json.exists() else []
    with absent_devices():
        for machine in TOPOLOGIES:
            for name in CONFIGS:
                _plan(name, machine, plans, options.json)
    write_bytes(options.markdown, page(plans).encode())


def _plan(name: str, machine: str, plans: Plans, path: Path) -> None:
    """Add the missing plans of a preset on a machine, and store all plans after each."""
    config = configs.load("pretrain", name)
    compiled: dict[Any, Compiled] = {}
    known = {(p["config"], p["machine"], p["stage"]) for p in plans}
    for stage in config.stages:
        if (name, machine, stage.name) in known:
            continue
        facts = plan(
            config,
            topology(machine),
            stages=(stage.name,),
            which="suggested",
            say=lambda line: print(f"{name} on {machine}, {line}", file=sys.stderr, flush=True),
            compiled=compiled,
        )
        plans.append({"config": name, "machine": machine, "stage": stage.name, **facts})
        write_json(path, plans)


def page(plans: Plans) -> str:
    """The plans as a page of Markdown."""
    text = _INTRODUCTION
    for machine in dict.fromkeys(p["machine"] for p in plans):
        of_machine = [p for p in plans if p["machine"] == machine]
        first = of_machine[0]
        text += (
            f"\n## {machine}\n\n"
            f"{first['devices']} x {first['device']} ({first['topology']});"
            f" {first['memory_bytes'] / 1e9:.1f} GB for a program: {first['memory_limit']}.\n\n"
        )
        text += "\n".join(_markdown(_HEADINGS, map(_cells, of_machine))) + "\n"
    return text


def summary(plans: Plans) -> list[str]:
    """Lines of a short table: memory per device and hours, for each stage and machine."""
    machines = {p["machine"]: p["memory_bytes"] for p in plans}
    stages: dict[str, dict[str, str]] = {}
    for p in plans:
        (stage,) = p["stages"]
        best = stage["suggested"]
        memory = f"{best['peak_bytes'] / 1e9:.1f} GB" if best else "does not fit"
        of_stage = stages.setdefault(f"{p['config']}, {stage['name']}", {})
        of_stage[p["machine"]] = f"{memory}, {stage['hours']:,.0f} h"
    headings = [f"{name}, of {limit / 1e9:.0f} GB" for name, limit in machines.items()]
    rows = ([name, *(cells.get(m, "–") for m in machines)] for name, cells in stages.items())
    return _markdown(["stage", *headings], rows)


def costs(plans: Plans) -> list[str]:
    """Lines of a table: hours of all stages of each preset and machine, and device-hours."""
    totals: dict[tuple[str, str], tuple[float, int]] = {}
    for p in plans:
        (stage,) = p["stages"]
        hours, _ = totals.get((p["config"], p["machine"]), (0.0, 0))
        totals[p["config"], p["machine"]] = hours + stage["hours"], p["devices"]
    rows = (
        [config, machine, str(devices), f"{hours:,.0f}", f"{hours * devices:,.0f}"]
        for (config, machine), (hours, devices) in totals.items()
    )
    return _markdown(["preset", "machine", "devices", "hours", "device-hours"], rows)


_HEADINGS = (
    "preset",
    "stage",
    "mesh",
    "remat",
    "microbatches x rows",
    "memory, GB",
    "sent a step, GB",
    "step, s",
    "hours",
)


def _cells(facts: dict[str, Any]) -> list[str]:
    """The cells of a stage's plan, below `_HEADINGS`."""
    (stage,) = facts["stages"]
    mesh = " ".join(f"{axis} {n}" for axis, n in stage["mesh"].items() if n > 1)
    chosen = ["does not fit", "", "", ""]
    if (best := stage["suggested"]) is not None:
        chosen = [
            best["remat"],
            f"{best['microbatches']} x {best['microbatch_rows']:,}",
            f"{best['peak_bytes'] / 1e9:.1f}",
            f"{best['collective_bytes'] / 1e9:.1f}",
        ]
    times = [f"{stage['step_seconds']:.2f}", f"{stage['hours']:,.0f}"]
    return [facts["config"], stage["name"], mesh or "1 device", *chosen, *times]


def _markdown(headings: Sequence[str], rows: Any) -> list[str]:
    """Lines of a table in Markdown."""
    lines = [f"| {' | '.join(headings)} |", "|" + " --- |" * len(headings)]
    return lines + [f"| {' | '.join(cells)} |" for cells in rows]


if __name__ == "__main__":
    main()

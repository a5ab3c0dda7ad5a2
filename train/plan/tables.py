"""Plans of the presets on usual machines, for the documentation: python -m ...train.plan.tables."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from modernbert_jax import configs
from modernbert_jax.io.files import write_bytes, write_json

from .facts import plan
from .topology import absent_devices, topology

CONFIGS = ("base", "large")
TOPOLOGIES = ("h100:8", "v5e-256", "v5p-128")


def main(args: list[str] | None = None) -> None:
    """Plans every stage of `CONFIGS` on every one of `TOPOLOGIES`, and writes JSON and Markdown.

    Whatever the JSON file holds already is not compiled again.
    """
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", type=Path, default=Path("docs/plans.json"))
    parser.add_argument("--markdown", type=Path, default=Path("docs/plans.md"))
    given = parser.parse_args(args)
    found: list[dict[str, Any]] = json.loads(given.json.read_text()) if given.json.exists() else []
    with absent_devices():
        for machine in TOPOLOGIES:
            for name in CONFIGS:
                _plan(name, machine, found, given.json)
    write_bytes(given.markdown, page(found).encode())


def _plan(name: str, machine: str, found: list[dict[str, Any]], path: Path) -> None:
    config, compiled = configs.load("pretrain", name), {}
    for stage in config.stages:
        if any(
            (f["config"], f["machine"], f["stage"]) == (name, machine, stage.name) for f in found
        ):
            continue
        facts = plan(
            config,
            topology(machine),
            stages=(stage.name,),
            which="suggested",
            say=lambda line: print(f"{name} on {machine}, {line}", file=sys.stderr, flush=True),
            compiled=compiled,
        )
        found.append({"config": name, "machine": machine, "stage": stage.name, **facts})
        write_json(path, found)


def page(found: list[dict[str, Any]]) -> str:
    """The plans as a page of Markdown."""
    lines = [
        "# Plans",
        "",
        "Each stage of the presets on three machines, with the lightest rematerialisation and with"
        " it the",
        "largest microbatch that fit: the real step of training, compiled by `make plans` for"
        " machines that",
        "were not there. Memory is the compiler's account of each device's peak, out of what a"
        " program gets;",
        "times are for 40 % of the peak FLOPs, on full rows of one document each. Nothing here has"
        " been run.",
    ]
    for machine in dict.fromkeys(f["machine"] for f in found):
        some = [f for f in found if f["machine"] == machine]
        first = some[0]
        lines += [
            "",
            f"## {machine}",
            "",
            f"{first['devices']} x {first['device']} ({first['topology']});"
            f" {first['memory_bytes'] / 1e9:.1f} GB for a program: {first['memory_limit']}.",
            "",
            *table(some),
        ]
    return "\n".join(lines) + "\n"


def table(found: list[dict[str, Any]]) -> list[str]:
    """A line of Markdown for each stage."""
    head = (
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
    lines = [f"| {' | '.join(head)} |", "|" + " --- |" * len(head)]
    for f in found:
        (stage,) = f["stages"]
        mesh = " ".join(f"{axis} {n}" for axis, n in stage["mesh"].items() if n > 1)
        cells = [f["config"], stage["name"], mesh or "1 device"]
        if (best := stage["suggested"]) is None:
            cells += ["does not fit", "", "", ""]
        else:
            cells += [
                best["remat"],
                f"{best['microbatches']} x {best['microbatch_rows']:,}",
                f"{best['peak_bytes'] / 1e9:.1f}",
                f"{best['collective_bytes'] / 1e9:.1f}",
            ]
        cells += [f"{stage['step_seconds']:.2f}", f"{stage['hours']:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def summary(found: list[dict[str, Any]]) -> list[str]:
    """A short table of Markdown: memory of a device and hours, for each stage and machine."""
    machines = {f["machine"]: f["memory_bytes"] for f in found}
    heads = [f"{name}, of {limit / 1e9:.0f} GB" for name, limit in machines.items()]
    rows: dict[str, dict[str, str]] = {}
    for f in found:
        (stage,) = f["stages"]
        best = stage["suggested"]
        memory = f"{best['peak_bytes'] / 1e9:.1f} GB" if best else "does not fit"
        of_machine = rows.setdefault(f"{f['config']}, {stage['name']}", {})
        of_machine[f["machine"]] = f"{memory}, {stage['hours']:,.0f} h"
    return [
        f"| stage | {' | '.join(heads)} |",
        "|" + " --- |" * (1 + len(heads)),
        *(
            f"| {name} | {' | '.join(cells.get(machine, '–') for machine in machines)} |"
            for name, cells in rows.items()
        ),
    ]


if __name__ == "__main__":
    main()

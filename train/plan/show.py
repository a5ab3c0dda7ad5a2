"""Print a plan: for each stage a table, the collectives, and a verdict."""

from collections.abc import Callable
from typing import Any

from rich import table as rich_table
from rich.text import Text

from modernbert_jax.io.progress import wide_console


def show(facts: dict[str, Any]) -> None:
    """Print the facts of `facts.plan`."""
    console = wide_console()
    console.print(
        Text(
            f"{facts['parameters']:,} parameters on {facts['devices']:,} x {facts['device']}"
            f" ({facts['topology']}); a program gets {_gb(facts['memory_bytes'])} of each:"
            f" {facts['memory_limit']}"
        )
    )
    for stage in facts["stages"]:
        console.print()
        console.print(Text(_headline(stage, facts["mfu"]), style="bold"))
        choices = [(name, c) for name in ("configured", "suggested") if (c := stage[name])]
        # A configuration whose mesh was refused has a reason, but no numbers.
        compiled = [(name, c) for name, c in choices if "peak_bytes" in c]
        if compiled:
            console.print(_table(compiled, facts["memory_bytes"]))
        for line in verdict(stage):
            console.print(Text(line))


def verdict(stage: dict[str, Any]) -> list[str]:
    """Conclusions for a stage, in a few lines."""
    lines, own, best = [], stage["configured"], stage["suggested"]
    if own:
        lines += [f"the compiler warns: {warning}" for warning in own.get("warnings", ())]
        verdict = "fits" if own["fits"] else "does not fit"
        reason = f" ({own['reason']})" if own["reason"] else ""
        lines.append(f"{stage['name']} as configured {verdict}{reason}")
    if best:
        better = f"pass {stage['flags']}" if stage["flags"] else "what is configured is the best"
        lines.append(f"lightest rematerialisation, largest microbatch: {better}")
    elif not own or "peak_bytes" not in own or not own["fits"]:
        lines.append(
            f"{stage['name']} does not fit at all: try --mesh.fsdp, more devices or other rows"
        )
    return lines


def _headline(stage: dict[str, Any], mfu: float) -> str:
    mesh = ", ".join(f"{axis} {n}" for axis, n in stage["mesh"].items() if n > 1) or "one device"
    line = f"{stage['name']}: {stage['rows']:,} rows of {stage['length']:,} tokens on {mesh}"
    line += f"; {stage['flops_per_step']:.3g} FLOPs a step"
    if stage["step_seconds"]:
        line += (
            f", {stage['step_seconds']:.2f} s at {mfu:.0%} MFU"
            f" ({stage['tokens_per_second']:,.0f} tokens/s), {stage['steps']:,} steps in"
            f" {stage['hours']:,.1f} hours"
        )
    return line


def _table(choices: list[tuple[str, dict[str, Any]]], limit: int) -> rich_table.Table:
    table = rich_table.Table(box=None, pad_edge=False)
    table.add_column("")
    for name, _ in choices:
        table.add_column(name, justify="right")
    for label, cell in _ROWS.items():
        table.add_row(label, *(Text(cell(choice)) for _, choice in choices))
    table.add_row("a program gets", *(_gb(limit) for _ in choices))
    attention = [choice["attention"] for _, choice in choices]
    for kind in dict.fromkeys(kind for each in attention for kind in each):
        cells = (f"{a[kind]['name']} ({a[kind]['why']})" if kind in a else "-" for a in attention)
        table.add_row(Text(kind.replace("_", " ")), *(Text(cell) for cell in cells))
    sent = [
        {f"{c['kind']} over {', '.join(c['axes'])}": c for c in choice["collectives"]}
        for _, choice in choices
    ]
    for label in dict.fromkeys(label for each in sent for label in each):
        table.add_row(Text(label), *(_sent(s[label]) if label in s else "-" for s in sent))
    return table


def _sent(collective: dict[str, Any]) -> str:
    least = "" if collective["counted"] else "at least "
    return f"{least}{collective['times']:,} x, {_gb(collective['bytes'])}"


def _of_memory(name: str) -> Callable[[dict[str, Any]], str]:
    return lambda choice: _gb(choice["memory"][name]) if choice["memory"] else "-"


def _gb(size: float) -> str:
    return f"{size / 1e9:,.3f} GB" if size < 1e9 else f"{size / 1e9:,.1f} GB"


_ROWS: dict[str, Callable[[dict[str, Any]], str]] = {
    "rematerialisation": lambda c: c["remat"],
    "microbatches": lambda c: f"{c['microbatches']:,} x {c['microbatch_rows']:,} rows",
    "parameters": _of_memory("parameters"),
    "optimizer": _of_memory("optimizer"),
    "batch": _of_memory("batch"),
    "activations and gradients": _of_memory("temporaries"),
    "peak": lambda c: _gb(c["peak_bytes"]),
}

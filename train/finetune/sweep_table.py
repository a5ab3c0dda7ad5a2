"""Table of a sweep: means and deviations over seeds, as JSON, text and plot."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.io import tables
from modernbert_jax.io.files import write_bytes, write_json
from modernbert_jax.io.text import for_plot

from .config import FinetuneConfig

NAME = "sweep"
KEYS = ("learning_rate", "weight_decay", "epochs")

Results = Sequence[tuple[FinetuneConfig, Mapping[str, Any]]]
"""Configurations of runs, each with its result."""


def score(result: Mapping[str, Any]) -> float:
    """Return the score to compare runs by: the best value of the task's metric, or -inf."""
    value = result["best"]["metrics"][result["metric"]] if "best" in result else None
    return -math.inf if value is None else value


def summary(results: Results) -> dict[str, Any]:
    """Return the table as a JSON object, with settings from the best mean to the worst.

    Each setting has every metric of the task at the best and at the last evaluation, and on test
    data where there are any. A metric is {"mean", "deviation", "values"} over seeds, in the order
    of "seeds". The deviation is the sample standard deviation, null for a single seed; the mean is
    null if a value is missing. "best_run" is the folder of the best seed of the best setting.
    """
    groups: dict[tuple[float, ...], list[tuple[FinetuneConfig, Mapping[str, Any]]]] = {}
    for run, result in results:
        groups.setdefault(tuple(getattr(run, key) for key in KEYS), []).append((run, result))
    settings = []
    for setting, members in groups.items():
        row: dict[str, Any] = dict(zip(KEYS, setting, strict=True))
        row["seeds"] = [run.seed for run, _ in members]
        row["runs"] = [run.output for run, _ in members]
        for when in ("best", "last", "test"):
            metrics = [result[when]["metrics"] for _, result in members if when in result]
            if len(metrics) == len(members):
                row[when] = {name: _spread([m.get(name) for m in metrics]) for name in metrics[0]}
        row["best_steps"] = [result.get("best", {}).get("step") for _, result in members]
        settings.append(row)
    metric = results[0][1]["metric"]
    settings.sort(key=lambda row: -_mean(row, metric))
    candidates = [pair for pair in results if pair[0].output in settings[0]["runs"]]
    return {
        "task": results[0][1]["task"],
        "metric": metric,
        "runs": len(results),
        "settings": settings,
        "best_run": max(candidates, key=lambda pair: score(pair[1]))[0].output,
    }


def _mean(row: Mapping[str, Any], metric: str) -> float:
    value = row.get("best", {}).get(metric, {}).get("mean")
    return -math.inf if value is None else value


def _spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Return mean and sample deviation; null where a value is missing."""
    numbers = [value for value in values if value is not None]
    if len(numbers) < len(values):
        return {"mean": None, "deviation": None, "values": list(values)}
    deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return {"mean": float(np.mean(numbers)), "deviation": deviation, "values": list(values)}


def text(table: Mapping[str, Any]) -> str:
    """Format the table: the task's metric for each setting, then all metrics of the best one."""
    metric, settings = table["metric"], table["settings"]
    header = ["learning rate", "weight decay", "epochs", "seeds", f"{metric}, best", "last"]
    rows = [
        [
            *(f"{row[key]:g}" for key in KEYS),
            str(len(row["seeds"])),
            *(cell(row.get(when, {}).get(metric)) for when in ("best", "last")),
        ]
        for row in settings
    ]
    first = settings[0]
    columns = [when for when in ("best", "last", "test") if when in first]
    names = first[columns[0]] if columns else ()
    every = [[name, *(cell(first[when].get(name)) for when in columns)] for name in names]
    named = ", ".join(f"{key.replace('_', ' ')} {first[key]:g}" for key in KEYS)
    return "\n".join(
        [*tables.lines([header, *rows]), "", named, *tables.lines([["", *columns], *every])]
    )


def cell(spread: Mapping[str, Any] | None) -> str:
    """Format mean ± deviation with four decimals; "-" without a mean."""
    if spread is None or spread["mean"] is None:
        return "-"
    deviation = "" if spread["deviation"] is None else f" ± {spread['deviation']:.4f}"
    return f"{spread['mean']:.4f}{deviation}"


def write(table: Mapping[str, Any], folder: Path) -> None:
    """Write `sweep.json` and `sweep.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{NAME}.json", dict(table))
    write_bytes(folder / f"{NAME}.txt", (text(table) + "\n").encode())


def draw(table: Mapping[str, Any], folder: Path) -> Path:
    """Draw `sweep.png`: mean and deviation over learning rates, a line per other setting."""
    from matplotlib.figure import Figure

    metric = table["metric"]
    lines: dict[tuple[float, float], list[Any]] = {}
    for row in sorted(table["settings"], key=lambda row: row["learning_rate"]):
        if _mean(row, metric) > -math.inf:
            lines.setdefault((row["weight_decay"], row["epochs"]), []).append(row)
    figure = Figure(figsize=(7, 4.2))
    figure.set_layout_engine("constrained")
    axis = figure.subplots()
    for i, (key, rows) in enumerate(sorted(lines.items())):
        spreads = [row["best"][metric] for row in rows]
        # Lines are shifted slightly, so that their error bars do not overlap.
        rates = [row["learning_rate"] * 1.02 ** (i - (len(lines) - 1) / 2) for row in rows]
        axis.errorbar(
            rates,
            [s["mean"] for s in spreads],
            [s["deviation"] or 0.0 for s in spreads],
            fmt="o-",
            capsize=3,
            linewidth=1.2,
            markersize=4,
            label=f"weight decay {key[0]:g}, {key[1]:g} epochs",
        )
    axis.set_xscale("log")
    rates = sorted({row["learning_rate"] for row in table["settings"]})
    axis.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axis.minorticks_off()
    axis.set_xlabel("learning rate")
    axis.set_ylabel(f"{for_plot(metric)}, best evaluation")
    axis.grid(alpha=0.3)
    if lines:
        axis.legend(fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_bytes(folder / f"{NAME}.png", buffer.getvalue())
    return folder / f"{NAME}.png"

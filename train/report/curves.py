"""Curves of runs over tokens: loss, schedule, norms, speed and memory."""

import base64
import html
import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from modernbert_jax.errors import UserError
from modernbert_jax.io import outputs
from modernbert_jax.io.files import write_bytes
from modernbert_jax.io.text import for_plot

from ..engine.metrics import read_rows

PANELS = {
    "loss": ("loss",),
    "validation score": ("score",),
    "masked accuracy": ("masked_accuracy",),
    "learning rate": ("learning_rate",),
    "rows in a batch": ("batch_rows",),
    "gradient norm": ("grad_norm",),
    "update norm": ("update_norm",),
    "parameter norm": ("param_norm",),
    "updates skipped": ("skipped_updates",),
    "tokens per second": ("tokens_per_second",),
    "model FLOPs utilisation": ("mfu",),
    "seconds of a step": ("step_seconds_p50", "step_seconds_p90", "step_seconds_max"),
    "seconds waited for data": ("data_wait_seconds",),
    "packing efficiency": ("packing_efficiency",),
    "device memory, bytes": ("device_memory_bytes",),
}
"""Keys of `metrics.jsonl` by the label of their panel; panels without values are omitted."""

METRICS = "metrics.jsonl"
"""File of a run's folder that is drawn."""

_ENDINGS = (".png", ".html")

EXACT = {"score", "learning_rate", "batch_rows", "skipped_updates"}
"""Keys that are not noisy and therefore not smoothed."""


def report(runs: Sequence[str | Path], output: str | Path | None = None) -> tuple[Path, Path]:
    """Draw runs over one another as `<output>.png`, and as a page `<output>.html` that contains it.

    By default, or where `output` is a folder, these are `report.png` and `report.html` in it or in
    the first run's folder. Existing ones are replaced. Returns both paths.

    Raises:
        UserError: a folder without metrics, or an output that cannot be written.
    """
    if not runs:
        raise UserError("report needs the folder of a run")
    png, page = paths = output_files(Path(runs[0]) if output is None else Path(output), runs)
    rows = {}
    for name, run in named(runs).items():
        rows[name] = metrics = read_rows(run / METRICS)
        if not metrics:
            raise UserError(f"{run}: no {METRICS} with a step in it; is it a run's folder?")
    known = {key for run in rows.values() for row in run for key in row if row[key] is not None}
    picture = _draw(rows, [label for label, keys in PANELS.items() if known & {*keys}], columns=2)
    write_bytes(png, picture)
    write_bytes(page, _page(rows, picture).encode())
    return paths


def named(runs: Iterable[str | Path]) -> dict[str, Path]:
    """Runs by name: the shortest ends of their paths that differ. A folder counts once."""
    folders = {run.resolve(): run for run in map(Path, runs)}
    parts = [Path(os.path.abspath(run)).parts for run in folders.values()]

    def name(path: tuple[str, ...]) -> str:
        ends = (path[-n:] for n in range(1, len(path) + 1))
        return str(Path(*next(e for e in ends if sum(p[-len(e) :] == e for p in parts) == 1)))

    return dict(zip(map(name, parts), folders.values(), strict=True))


def output_files(output: Path, runs: Sequence[str | Path]) -> tuple[Path, Path]:
    """Paths of picture and page, which can be written."""
    stem = output / "report" if output.is_dir() else output
    if stem.suffix in _ENDINGS:
        stem = stem.with_suffix("")
    inputs = [Path(run) / METRICS for run in runs]
    png, page = (stem.with_name(stem.name + ending) for ending in _ENDINGS)
    for path, ending in zip((png, page), _ENDINGS, strict=True):
        outputs.check_file(path, inputs, replaces=ending)
    return png, page


def curves(run: str | Path, path: str | Path) -> Path:
    """Draw only the loss and the learning rate of a run, and return the path."""
    path = Path(path)
    write_bytes(path, _draw({"": read_rows(Path(run) / METRICS)}, ["loss", "learning rate"]))
    return path


def _draw(runs: dict[str, list[dict[str, Any]]], labels: Sequence[str], columns: int = 1) -> bytes:
    height = -(-len(labels) // columns)
    figure = Figure(figsize=(9 if columns == 1 else 7 * columns, 2.6 * height + 0.4))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(height, columns, sharex=True, squeeze=False)
    for axis in panels.flat[len(labels) :]:
        axis.set_axis_off()
    for label, axis in zip(labels, panels.flat, strict=False):
        for name, rows in runs.items():
            for key in PANELS[label]:
                _curve(axis, name, rows, key, alone=len(runs) == 1)
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.margins(x=0.01)
        _mark_stages(axis, next(iter(runs.values())), named=axis in panels[0])
        if len(axis.get_legend_handles_labels()[0]) > 1:
            axis.legend(loc="upper right", fontsize="small")
    for column in range(min(columns, len(labels))):
        last = panels.flat[: len(labels)][column::columns][-1]
        last.set_xlabel("tokens")
        last.tick_params(labelbottom=True)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130 if columns == 1 else 110)
    return buffer.getvalue()


def _curve(axis, name: str, rows: list[dict[str, Any]], key: str, alone: bool) -> None:
    points = [(r["tokens"], r[key]) for r in rows if r.get(key) is not None]
    what = "training" if key == "loss" else ""
    if key.startswith("step_seconds_"):
        what = key.removeprefix("step_seconds_")
    tokens, values = np.asarray(points, float).reshape(-1, 2).T
    curve = values if key in EXACT else _smooth(values)
    name = for_plot(name)
    label = " ".join(filter(None, (name, what)))
    (line,) = axis.plot(tokens, curve, linewidth=1.4, label=label or None)
    if key not in EXACT:
        axis.plot(tokens, values, linewidth=0.8, alpha=0.3, color=line.get_color())
    if key == "loss":
        evaluated = _evaluations(rows)
        axis.plot(
            *zip(*evaluated, strict=True) if evaluated else ((), ()),
            "o--",
            color="tab:red" if alone else line.get_color(),
            markersize=4,
            label=" ".join(filter(None, (name, "validation"))),
        )


def _evaluations(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Evaluation losses with the tokens of their steps."""
    tokens = {0: 0} | {r["step"]: r["tokens"] for r in rows if "tokens" in r}
    return [
        (tokens[r["step"]], r["eval_loss"])
        for r in rows
        if r["step"] in tokens and "eval_loss" in r
    ]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Moving average over a fortieth of the curve on either side."""
    reach = len(values) // 40
    sums = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    low, high = np.maximum(i - reach, 0), np.minimum(i + reach + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _mark_stages(axis, rows: list[dict[str, Any]], named: bool) -> None:
    """Draw a line where each stage begins, and its name."""
    starts: dict[str, float] = {}
    last = 0.0
    for row in (r for r in rows if "tokens" in r):
        starts.setdefault(row["stage"], last)
        last = row["tokens"]
    for i, (name, start) in enumerate(starts.items() if len(starts) > 1 else ()):
        axis.axvline(start, color="gray", linewidth=0.8, linestyle=":")
        if named:
            axis.annotate(
                for_plot(name),
                (start, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 4 + 11 * (i % 2)),  # names of short stages would overlap
                textcoords="offset points",
                fontsize=8,
                color="gray",
            )


def _page(runs: dict[str, list[dict[str, Any]]], picture: bytes) -> str:
    """A self-contained HTML page."""
    body = []
    for name, rows in runs.items():
        steps, evaluations = [r for r in rows if "loss" in r], [r for r in rows if "eval_loss" in r]
        facts = {"steps": f"{steps[-1]['step']:,}", "tokens": f"{steps[-1]['tokens']:,}"}
        last = steps[-1]
        facts |= {
            label: ", ".join(f"{last[key]:.4g}" for key in keys)
            for label, keys in PANELS.items()
            if all(last.get(key) is not None for key in keys)
        }
        spent = {k.removeprefix("seconds_"): s for k, s in last.items() if k.startswith("seconds_")}
        facts |= {f"hours, {name}": f"{s / 3600:,.2f}" for name, s in spent.items()}
        if evaluations:
            ends = evaluations[0]["eval_loss"], evaluations[-1]["eval_loss"]
            facts["validation loss, first and last"] = "{:.3f}, {:.3f}".format(*ends)
        if scores := [r["score"] for r in evaluations if r.get("score") is not None]:
            facts["validation score, best and last"] = f"{max(scores):.4f}, {scores[-1]:.4f}"
        cells = "".join(f"<tr><th>{html.escape(k)}</th><td>{v}</td></tr>" for k, v in facts.items())
        body.append(f"<h2>{html.escape(name)}</h2><table>{cells}</table>")
    image = base64.b64encode(picture).decode()
    return (
        "<!doctype html><meta charset='utf-8'><title>Training report</title>"
        "<style>body{font:15px sans-serif;margin:2em;max-width:70em}"
        "th{text-align:left;padding-right:1em;font-weight:normal}img{max-width:100%}</style>"
        f"<h1>Training report</h1>{''.join(body)}"
        f"<img alt='curves' src='data:image/png;base64,{image}'>\n"
    )

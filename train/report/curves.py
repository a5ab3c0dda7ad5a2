"""Curves of runs over tokens: loss, schedule, norms, speed and memory."""

import base64
import html
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from modernbert_jax.errors import UserError
from modernbert_jax.io import outputs
from modernbert_jax.io.files import write_bytes
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.io.text import for_plot

from ..engine.metrics import read_rows

SCORE = "validation score"
"""Label of the score's panel, unless the name of the metric is known."""

PANELS = {
    "loss": ("loss",),
    SCORE: ("score",),
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

EVALUATED = {"loss": "eval_loss", "masked_accuracy": "eval_masked_accuracy"}
"""Keys of evaluations that are drawn as points beside a curve of training."""


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
    rows, scores = {}, {}
    for name, run in named(runs).items():
        rows[name] = metrics = _without_repeated_score(read_rows(run / METRICS))
        if not metrics:
            raise UserError(f"{run}: no {METRICS} with a step in it; is it a run's folder?")
        scores[name] = _score_of(run)
    known = {key for run in rows.values() for row in run for key in row if row[key] is not None}
    titles = {SCORE: ", ".join(dict.fromkeys(scores.values()))}
    panels = {titles.get(k, k): keys for k, keys in PANELS.items() if known & {*keys}}
    picture = _draw(rows, panels, columns=2)
    write_bytes(png, picture)
    write_bytes(page, _page(rows, scores, picture).encode())
    return paths


def _score_of(run: Path) -> str:
    """Label of a run's score, with the metric of its task where it has one."""
    path = run / "config.json"
    task = read_json(path).get("task") if path.is_file() else None
    metric = task.get("best_metric") if isinstance(task, dict) else None
    return for_plot(f"validation {metric}") if metric else SCORE


def _without_repeated_score(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows without a score that is the negative loss, which has a panel already."""
    scores = [(row["score"], row.get("eval_loss")) for row in rows if row.get("score") is not None]
    if any(loss is None or score != -loss for score, loss in scores):
        return rows
    return [{key: value for key, value in row.items() if key != "score"} for row in rows]


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
    panels = {label: PANELS[label] for label in ("loss", "learning rate")}
    write_bytes(path, _draw({"": read_rows(Path(run) / METRICS)}, panels))
    return path


def _draw(
    runs: dict[str, list[dict[str, Any]]], labels: Mapping[str, Sequence[str]], columns: int = 1
) -> bytes:
    """A PNG file with a panel for each label, with curves of its keys."""
    height = -(-len(labels) // columns)
    figure = Figure(figsize=(9 if columns == 1 else 7 * columns, 2.6 * height + 0.4))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(height, columns, sharex=True, squeeze=False)
    for axis in panels.flat[len(labels) :]:
        axis.set_axis_off()
    for label, axis in zip(labels, panels.flat, strict=False):
        for name, rows in runs.items():
            for key in labels[label]:
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
    what = "training" if key in EVALUATED else ""
    if key.startswith("step_seconds_"):
        what = key.removeprefix("step_seconds_")
    tokens, values = np.asarray(points, float).reshape(-1, 2).T
    curve = values if key in EXACT else _smooth(values)
    name = for_plot(name)
    label = " ".join(filter(None, (name, what)))
    # A single point has no line.
    style: dict[str, Any] = {"linewidth": 1.4, "marker": "o" if len(points) == 1 else ""}
    if key == "score":
        style |= {"marker": "o", "linestyle": "--"}
    (line,) = axis.plot(tokens, curve, markersize=4, label=label or None, **style)
    if key not in EXACT:
        axis.plot(tokens, values, linewidth=0.8, alpha=0.3, color=line.get_color())
    if evaluated := _evaluations(rows, EVALUATED.get(key, "")):
        axis.plot(
            *zip(*evaluated, strict=True),
            "o--",
            color="tab:red" if alone else line.get_color(),
            markersize=4,
            label=" ".join(filter(None, (name, "validation"))),
        )


def _evaluations(rows: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    """Values of evaluations with the tokens of their steps."""
    tokens = {0: 0} | {r["step"]: r["tokens"] for r in rows if "tokens" in r}
    return [
        (tokens[r["step"]], r[key]) for r in rows if r["step"] in tokens and r.get(key) is not None
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


def _page(
    runs: dict[str, list[dict[str, Any]]], score_names: Mapping[str, str], picture: bytes
) -> str:
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
            ends = max(scores), scores[-1]
            facts[f"{score_names[name]}, best and last"] = "{:.4f}, {:.4f}".format(*ends)
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

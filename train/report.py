"""Pictures of runs: loss, learning rate, speed, packing and gradient norm over tokens."""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from modernbert_jax.errors import UserError
from modernbert_jax.files import write_bytes

from .metrics import read_rows

PANELS = (
    ("loss", "masked-LM loss, nats"),
    ("learning_rate", "learning rate"),
    ("tokens_per_second", "tokens per second"),
    ("grad_norm", "gradient norm"),
    ("packing_efficiency", "packing efficiency"),
)
"""Curves by the key of `metrics.jsonl`, with the label of their axis."""


def report(runs: Sequence[str | Path], output: str | Path | None = None) -> tuple[Path, Path]:
    """Draws runs over one another into `<output>.png` and a page `<output>.html` that holds it.

    By default they are `report.png` and `report.html` in the first run's folder. Returns both
    paths. Raises `UserError` for a folder without metrics.
    """
    if not runs:
        raise UserError("report needs the folder of a run")
    rows = {}
    for run in map(Path, runs):
        rows[run.name or str(run)] = read_rows(run / "metrics.jsonl")
        if not rows[run.name or str(run)]:
            raise UserError(f"{run}: no metrics.jsonl with a step in it; is it a run's folder?")
    stem = Path(output) if output else Path(runs[0]) / "report"
    picture = _draw(rows, [key for key, _ in PANELS])
    png, page = stem.with_suffix(".png"), stem.with_suffix(".html")
    write_bytes(png, picture)
    write_bytes(page, _page(rows, picture).encode())
    return png, page


def curves(run: str | Path, path: str | Path) -> Path:
    """Draws only the loss and the learning rate of a run."""
    path = Path(path)
    write_bytes(
        path, _draw({"": read_rows(Path(run) / "metrics.jsonl")}, ["loss", "learning_rate"])
    )
    return path


def _draw(runs: dict[str, list[dict[str, Any]]], keys: Sequence[str]) -> bytes:
    figure = Figure(figsize=(9, 2.6 * len(keys) + 0.4), layout="constrained")
    panels = figure.subplots(len(keys), 1, sharex=True, squeeze=False)[:, 0]
    for key, axis in zip(keys, panels, strict=True):
        for name, rows in runs.items():
            points = [(r["tokens"], r[key]) for r in rows if r.get(key) is not None]
            label = " ".join(filter(None, (name, "training" if key == "loss" else "")))
            tokens, values = np.asarray(points).reshape(-1, 2).T
            exact = key == "learning_rate"  # the others are noisy
            curve = values if exact else _smooth(values)
            (line,) = axis.plot(tokens, curve, linewidth=1.4, label=label or None)
            if not exact:
                axis.plot(tokens, values, linewidth=0.8, alpha=0.3, color=line.get_color())
            if key == "loss":
                evaluated = _evaluations(rows)
                axis.plot(
                    *zip(*evaluated, strict=True) if evaluated else ((), ()),
                    "o--",
                    color="tab:red" if len(runs) == 1 else line.get_color(),
                    markersize=4,
                    label=" ".join(filter(None, (name, "validation"))),
                )
        axis.set_ylabel(dict(PANELS)[key])
        axis.grid(alpha=0.3)
        axis.margins(x=0.01)
        _mark_stages(axis, next(iter(runs.values())), named=key == keys[0])
        if key == "loss" or len(runs) > 1:
            axis.legend(loc="upper right")
    panels[-1].set_xlabel("tokens")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def _evaluations(rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Tokens and evaluation loss; an evaluation lies at the tokens of its step."""
    tokens = {0: 0} | {r["step"]: r["tokens"] for r in rows if "tokens" in r}
    return [
        (tokens[r["step"]], r["eval_loss"])
        for r in rows
        if r["step"] in tokens and "eval_loss" in r
    ]


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbours: a fortieth of the curve to either side."""
    reach = len(values) // 40
    sums = np.concatenate([[0.0], np.cumsum(values)])
    i = np.arange(len(values))
    low, high = np.maximum(i - reach, 0), np.minimum(i + reach + 1, len(values))
    return (sums[high] - sums[low]) / (high - low)


def _mark_stages(axis, rows: list[dict[str, Any]], named: bool) -> None:
    """A line where a stage begins, and its name."""
    seen: dict[str, float] = {}
    last = 0.0
    for row in (r for r in rows if "tokens" in r):
        seen.setdefault(row["stage"], last)
        last = row["tokens"]
    for i, (name, start) in enumerate(seen.items() if len(seen) > 1 else ()):
        axis.axvline(start, color="gray", linewidth=0.8, linestyle=":")
        if named:
            axis.annotate(
                name,
                (start, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(4, 4 + 11 * (i % 2)),  # short stages would write over one another
                textcoords="offset points",
                fontsize=8,
                color="gray",
            )


def _page(runs: dict[str, list[dict[str, Any]]], picture: bytes) -> str:
    """One HTML file that needs nothing else."""
    body = []
    for name, rows in runs.items():
        steps, evaluations = [r for r in rows if "loss" in r], [r for r in rows if "eval_loss" in r]
        facts = {"steps": f"{steps[-1]['step']:,}", "tokens": f"{steps[-1]['tokens']:,}"}
        facts |= {label: f"{steps[-1][key]:.4g}" for key, label in PANELS if key in steps[-1]}
        if evaluations:
            first, last = evaluations[0]["eval_loss"], evaluations[-1]["eval_loss"]
            facts["validation loss, first and last"] = f"{first:.3f}, {last:.3f}"
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

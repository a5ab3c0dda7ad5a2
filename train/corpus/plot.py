"""Plot of a prepared folder: lengths, mixture, padding, and unknown and special tokens."""

import io
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator, PercentFormatter

from modernbert_jax.io.files import write_bytes
from modernbert_jax.io.text import for_plot

from ..rows.manifest import EDGES

_PANELS: list[Any] = [
    ["documents"] * 3 + ["tokens"] * 3,
    ["mixture"] * 2 + ["padding"] * 2 + ["rates"] * 2,
]
_GRAY = "0.35"
_COLORS = ("#3f6fb0", "#e2893b", "#4f9d69", "#b8516b", "#7f6bb3", "#4aa5b5", "#a58b3e", "#8c8c8c")


def plot(facts: dict[str, Any], path: str | Path) -> Path:
    """Draw the facts of `report.facts` as a PNG and return its path."""
    figure = Figure(figsize=(13, 8))
    figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.12)
    axes = figure.subplot_mosaic(_PANELS, height_ratios=(5, 3))
    names = list(facts["components"])
    colors = dict(zip(names, itertools.cycle(_COLORS), strict=False))
    _lengths(axes["documents"], facts, colors, by_tokens=False)
    _lengths(axes["tokens"], facts, colors, by_tokens=True)
    _mixture(axes["mixture"], facts, colors)
    _padding(axes["padding"], facts, colors)
    _rates(axes["rates"], facts, colors)
    for axis in axes.values():
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_axisbelow(True)
    packed = ", ".join(
        f"{total['rows']:,} rows of {int(length):,} ({total['efficiency']:.2%} full)"
        for length, total in facts["lengths"].items()
    )
    figure.suptitle(
        f"{for_plot(Path(facts['folder']).name)}: {facts['documents']:,} documents,"
        f" {short(facts['tokens'])} tokens, {packed}",
        fontsize=13,
    )
    if len(names) > 1:
        axes["documents"].legend(frameon=False, loc="upper left")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    write_bytes(path, buffer.getvalue())
    return Path(path)


def _title(axis, text: str) -> None:
    axis.set_title(text, loc="left", fontsize=11, fontweight="bold")


def short(number: float) -> str:
    """A number with three digits and a unit, such as "12.3 M"."""
    for size, unit in ((1e12, " T"), (1e9, " B"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.3g}"


def _lengths(axis, facts: dict[str, Any], colors: dict[str, str], *, by_tokens: bool) -> None:
    """Histogram of documents, or of their tokens, by length, with stacked components."""
    counts = {
        name: np.array([c["document_lengths"].get(str(edge), 0) for edge in EDGES], float)
        for name, c in facts["components"].items()
    }
    used = np.flatnonzero(sum(counts.values()))
    first, last = (used[0], used[-1] + 1) if used.size else (0, 1)
    edges = np.array([*EDGES, 2 * EDGES[-1]], float)
    bottom = np.zeros(last - first)
    for name, count in counts.items():
        if by_tokens:  # each document has the length of its bin's middle, but the sum is exact
            count = count * np.sqrt(edges[:-1] * edges[1:])
            count *= facts["components"][name]["tokens"] / max(count.sum(), 1)
        heights = count[first:last]
        axis.bar(
            edges[first:last],
            heights,
            np.diff(edges[first : last + 1]),
            bottom,
            align="edge",
            color=colors[name],
            edgecolor="white",
            linewidth=0.4,
            label=for_plot(name),
        )
        bottom += heights
    axis.grid(axis="y", alpha=0.25)
    axis.set_xscale("log", base=2)
    axis.set_xlim(edges[first], edges[last])
    axis.set_ylim(0, 1.13 * max(bottom.max(), 1))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{int(x):,}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: short(y) if y else "0"))
    axis.set_xlabel("tokens in a document")
    _title(axis, "Tokens by length of their document" if by_tokens else "Documents by length")
    for length in map(int, facts["lengths"]):
        if edges[first] < length < edges[last]:
            axis.axvline(length, color=_GRAY, linewidth=1, linestyle=":")
            axis.annotate(
                f"row of {length:,}",
                (length, 1),
                xycoords=("data", "axes fraction"),
                xytext=(-4, -3),
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="top",
                fontsize=8,
                color=_GRAY,
            )


def _mixture(axis, facts: dict[str, Any], colors: dict[str, str]) -> None:
    """Each component's share of the stored tokens, and of the tokens that training reads."""
    length = max(facts["lengths"], key=int)
    bars = {
        "stored": {n: c["share"] for n, c in facts["components"].items()},
        "read": {
            n: c["lengths"][length]["share_in_training"] for n, c in facts["components"].items()
        },
    }
    for y, shares in enumerate(bars.values()):
        left = 0.0
        for name, share in shares.items():
            axis.barh(y, share, 0.62, left, color=colors[name], edgecolor="white")
            if share > 0.08:
                axis.text(
                    left + share / 2,
                    y,
                    f"{for_plot(name)}\n{share:.0%}" if share > 0.14 else f"{share:.0%}",
                    ha="center",
                    va="center",
                    color="white",
                    fontsize=9,
                )
            left += share
    axis.set_yticks(range(len(bars)), bars)
    axis.invert_yaxis()
    axis.set_xlim(0, 1)
    axis.xaxis.set_major_formatter(PercentFormatter(1))
    _title(axis, "Tokens of each component")


def _padding(axis, facts: dict[str, Any], colors: dict[str, str]) -> None:
    """Share of padding in the rows of each component and length."""
    _title(axis, "Padding, share of the rows")
    bars = [
        (_label(f"{int(length):,}", name, colors), colors[name], 1 - rows["efficiency"])
        for length in facts["lengths"]
        for name, c in facts["components"].items()
        if (rows := c["lengths"][length].get("train"))
    ]
    _bars(axis, bars, "{:.3%}")
    axis.xaxis.set_major_formatter(PercentFormatter(1))


def _rates(axis, facts: dict[str, Any], colors: dict[str, str]) -> None:
    """Unknown and special tokens in the text, per million tokens."""
    _title(axis, "Odd tokens in the text, per million")
    rates = [
        (_label(kind, name, colors), colors[name], 1e6 * c[f"{kind}_rate"])
        for kind in ("unknown", "special")
        for name, c in facts["components"].items()
    ]
    if not any(rate for *_, rate in rates):
        axis.set_axis_off()
        axis.text(0, 0.93, "no unknown and no special tokens", va="top", color=_GRAY)
        return
    _bars(axis, rates, "{:,.1f}")


def _label(text: str, name: str, colors: dict[str, str]) -> str:
    return f"{text} {for_plot(name)}" if len(colors) > 1 else text


def _bars(axis, bars: list[tuple[str, str, float]], text: str) -> None:
    """Horizontal bars from the top, each with a label, a color and a value."""
    labels, colors, values = zip(*bars, strict=True)
    drawn = axis.barh(range(len(bars)), values, 0.7, color=colors)
    axis.bar_label(drawn, [text.format(v) if v else "0" for v in values], padding=3, fontsize=8)
    axis.set_yticks(range(len(bars)), labels, fontsize=8)
    axis.tick_params(axis="y", length=0)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.3 * max(*values, 1e-5))
    axis.locator_params(axis="x", nbins=4)

"""Draws docs/images/packing.svg: padded batches, packed rows, and the keys that attention reads.

python docs/generator/picture.py

The rows are those of `packing.pack`, and the ranges those of `attention.key_ranges`.
"""

from pathlib import Path

import jax.numpy as jnp
import matplotlib
import numpy as np
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from modernbert_jax import packing
from modernbert_jax.attention import key_ranges

matplotlib.use("svg")
from matplotlib import pyplot

OUTPUT = Path(__file__).parents[1] / "images" / "packing.svg"

LENGTHS = (22, 34, 9, 48, 16, 14, 30, 18)
"""Lengths of the documents, in tokens."""

ROW = 64
"""Tokens in a packed row."""

WINDOW = 16
"""Window of the sliding layer, in tokens."""

COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#9d755d", "#bab03d")
PADDING = "#e8e8e8"


def boxes(axes: Axes, rows: list[list[int]], width: int, title: str) -> None:
    """Draw rows of documents, with padding in grey, and the share of real tokens above."""
    share = sum(LENGTHS) / (len(rows) * width)
    axes.set_title(f"{title}: {share:.0%} of the tokens are text", fontsize=10, loc="left")
    for y, row in enumerate(rows):
        axes.add_patch(Rectangle((0, y + 0.08), width, 0.84, color=PADDING, lw=0))
        x = 0
        for document in row:
            length = LENGTHS[document]
            colour = COLOURS[document]
            axes.add_patch(Rectangle((x, y + 0.08), length, 0.84, fc=colour, ec="white", lw=1))
            axes.text(x + length / 2, y + 0.5, str(length), color="white", ha="center", va="center")
            x += length
    axes.set_xlim(0, ROW)
    axes.set_ylim(len(rows), 0)
    axes.axis("off")


def scores(axes: Axes, row: list[int], window: int | None, title: str) -> None:
    """Draw the key range of every query of a row, in the colour of its document."""
    lengths = [LENGTHS[i] for i in row]
    rows = packing.layout(np.zeros((1, sum(lengths)), np.int32), [lengths], ROW)
    segments = np.asarray(rows.segment_ids)
    ranges = key_ranges(jnp.asarray(segments), window)
    first, last = np.asarray(ranges.first)[0], np.asarray(ranges.last)[0]
    pixels = np.full((ROW, ROW, 3), colors.to_rgb(PADDING))
    for query, segment in enumerate(segments[0]):
        if segment:
            pixels[query, first[query] : last[query] + 1] = colors.to_rgb(COLOURS[row[segment - 1]])
    axes.imshow(pixels, interpolation="none")
    computed = np.maximum(last - first + 1, 0).sum() / ROW**2
    axes.set_title(f"{title}\n{computed:.0%} of the scores", fontsize=10, loc="left")
    axes.set_xlabel("keys", fontsize=9)
    axes.set_ylabel("queries", fontsize=9)
    axes.set_xticks([])
    axes.set_yticks([])


def draw(path: Path) -> None:
    """Write the picture; the same bytes for the same version of matplotlib."""
    pyplot.rcParams.update({"svg.hashsalt": "packing", "font.size": 9, "svg.fonttype": "path"})
    rows = sorted(packing.pack(LENGTHS, ROW), key=len, reverse=True)
    figure = pyplot.figure(figsize=(9.6, 3.7))
    grid = figure.add_gridspec(2, 3, width_ratios=(1.25, 1, 1), height_ratios=(8, 3.2))
    boxes(figure.add_subplot(grid[0, 0]), [[i] for i in range(8)], max(LENGTHS), "Padded batch")
    boxes(figure.add_subplot(grid[1, 0]), rows, ROW, "Packed rows")
    scores(figure.add_subplot(grid[:, 1]), rows[0], None, "Full layer: the document")
    scores(figure.add_subplot(grid[:, 2]), rows[0], WINDOW, "Sliding layer: its window")
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None}, transparent=False, facecolor="white")


if __name__ == "__main__":
    draw(OUTPUT)

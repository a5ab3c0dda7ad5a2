"""Our figures beside the paper's."""

from collections.abc import Sequence

from rich.table import Table

from modernbert_jax.io.progress import wide_console

from .. import number
from .comparison import SPREADS, Result
from .documents import LENGTHS
from .settings import TITLES

PAPER: dict[str, tuple[float | None, ...]] = {
    "BERT base": (1096, 180.4, 90.2, None, None, None),
    "RoBERTa base": (664, 179.9, 89.9, None, None, None),
    "DeBERTaV3 base": (236, 70.2, 35.1, None, None, None),
    "NomicBERT": (588, 117.1, 58.5, 36, 46.1, 23.1),
    "GTE-en-MLM base": (640, 123.7, 61.8, 38, 46.8, 23.4),
    "GTE-en-MLM base, xformers": (640, 122.5, 128.6, 38, 47.5, 67.3),
    "ModernBERT base": (1604, 148.1, 147.3, 98, 123.7, 133.8),
    "BERT large": (792, 54.4, 27.2, None, None, None),
    "RoBERTa large": (460, 42.0, 21.0, None, None, None),
    "DeBERTaV3 large": (134, 24.6, 12.3, None, None, None),
    "GTE-en-MLM large": (472, 38.7, 19.3, 28, 16.2, 8.1),
    "GTE-en-MLM large, xformers": (472, 38.5, 40.4, 28, 16.5, 22.8),
    "ModernBERT large": (770, 52.3, 52.9, 48, 46.8, 49.8),
}
"""Largest batch, and thousand tokens per second of documents of one length and of many; short ones,
then long ones. Warner et al. 2024, table 2, on an NVIDIA RTX 4090: weights in float32, flash
attention in bfloat16."""

PAPER_DEVICE = "NVIDIA RTX 4090, the paper"


def line(result: Result) -> str:
    """One result in a line."""
    spread = f"{number(result.speed)} ± {number(result.speed * result.deviation / result.seconds)}"
    return (
        f"{TITLES[result.side]}, {result.size}, {result.spread}: {spread} thousand tokens/s,"
        f" batch {result.batch}, {number(result.gigabytes)} GB"
    )


def show(model: str, results: Sequence[Result]) -> None:
    """Print the paper's table with our rows above it, and the memory of our sides."""
    table = Table("thousand real tokens/s", "device", box=None, pad_edge=False)
    for size in LENGTHS:
        for heading in ("batch", "fixed", "variable", "GB"):
            table.add_column(f"{size} {heading}", justify="right")
    for side in dict.fromkeys(result.side for result in results):
        own = {(r.size, r.spread): r for r in results if r.side == side}
        cells = []
        for size in LENGTHS:
            pair = [own.get((size, spread)) for spread in SPREADS]
            first = pair[0]
            cells += [str(first.batch) if first else "–"]
            cells += [number(r.speed) if r else "–" for r in pair]
            cells += [number(first.gigabytes) if first else "–"]
        any_ = next(iter(own.values()))
        table.add_row(f"{model}, {TITLES[side]}", f"{any_.device}, {any_.dtype}", *cells)
    for name, values in PAPER.items():
        shown = ["–" if x is None else f"{x:g}" for x in values]
        table.add_row(name, PAPER_DEVICE, *shown[:3], "–", *shown[3:], "–")
    wide_console().print(table)

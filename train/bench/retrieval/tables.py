"""Tables of the comparison: quality over seeds, speed and memory, and the probe."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from rich.table import Table

from modernbert_jax.io.progress import wide_console

from .. import number
from .comparison import Result
from .settings import TITLES, TRAINED, Side

NONE = "–"


def line(result: Result) -> str:
    """One result in a line."""
    seed = f", seed {result.seed}" if result.examples else ""
    numbers = ", ".join(f"{name} {digits(x)}" for name, x in result.metrics.items())
    speed = f", {number(step_speed(result))} examples/s" if result.step_seconds else ""
    side = f"{result.data}, {result.kind}, {TITLES[result.side]}{seed}"
    return f"{side}: {result.failure or numbers + speed}"


def show(results: Sequence[Result]) -> None:
    """Print the tables of every data set and kind."""
    console = wide_console()
    for data, kind in dict.fromkeys((r.data, r.kind) for r in results):
        sides: dict[Side, list[Result]] = {}
        for result in results:
            if (result.data, result.kind) == (data, kind):
                sides.setdefault(result.side, []).append(result)
        console.print(f"\n{data}, {kind}", highlight=False)
        console.print(_quality(sides))
        if {*sides} & {*TRAINED}:
            console.print(_speed(sides))
            console.print(_probe(sides))


def _quality(sides: Mapping[Side, Sequence[Result]]) -> Table:
    """Metrics of every side: mean and deviation over seeds."""
    table = Table("quality", box=None, pad_edge=False)
    names = [*dict.fromkeys(name for own in sides.values() for r in own for name in r.metrics)]
    for name in names:
        table.add_column(name, justify="right")
    for side, own in sides.items():
        failure = next((r.failure for r in own if r.failure), "")
        cells = [_deviation_of(name, own) for name in names] if not failure else [failure]
        table.add_row(TITLES[side], *cells)
    return table


def _speed(sides: Mapping[Side, Sequence[Result]]) -> Table:
    """Speed of the sides that train, relative to sentence-transformers', and memory."""
    table = Table("training", box=None, pad_edge=False)
    headings = ("examples/s", "ratio", "with compilation", "ratio", "compilation s", "peak GB")
    for heading in headings:
        table.add_column(heading, justify="right")
    for side, own in sides.items():
        if side not in TRAINED or any(r.failure for r in own):
            continue
        cells = []
        for rate in (step_speed, whole_speed):
            speed, peer = best(own, rate), best(sides.get("peer", []), rate)
            cells += [number(speed), f"{speed / peer:.2f}" if peer else NONE]
        compiling = min(r.compile_seconds for r in own)
        cells += [number(compiling) if compiling else NONE]
        table.add_row(TITLES[side], *cells, number(max(r.peak_memory for r in own) / 1e9))
    return table


def _probe(sides: Mapping[Side, Sequence[Result]]) -> Table:
    """The loss of the kept groups by step, for the first seed of each side."""
    first = {side: own[0].probe for side, own in sides.items() if own[0].probe}
    table = Table("loss of kept groups, step", box=None, pad_edge=False)
    for side in first:
        table.add_column(TITLES[side], justify="right")
    for step in next(iter(first.values()), {}):
        table.add_row(step, *(f"{probe.get(step, math.nan):.4f}" for probe in first.values()))
    return table


def _deviation_of(metric: str, results: Sequence[Result]) -> str:
    """Mean and deviation of a metric; a dash where a side has none, as BM25 has no weights."""
    values = [r.metrics[metric] for r in results if metric in r.metrics]
    return deviation(values) if values else NONE


def digits(value: float, like: float | None = None) -> str:
    """A metric: a share with four decimals, a number above one (or one `like` that) with one."""
    return f"{value:.4f}" if abs(value if like is None else like) <= 1 else f"{value:.1f}"


def deviation(values: Sequence[float]) -> str:
    """Mean of values, with their deviation where there are several."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return digits(mean)
    return f"{digits(mean)} ± {digits(statistics.stdev(values), mean)}"


def step_speed(result: Result) -> float:
    """Examples per second of the steps; 0 for a side that does not train."""
    return result.examples / result.step_seconds if result.step_seconds else 0.0


def whole_speed(result: Result) -> float:
    """Examples per second of the whole training; 0 for a side that does not train."""
    return result.examples / result.seconds if result.seconds else 0.0


def best(results: Sequence[Result], rate: Callable[[Result], float]) -> float:
    """The best speed over seeds; 0 without one."""
    return max((rate(r) for r in results if not r.failure), default=0.0)

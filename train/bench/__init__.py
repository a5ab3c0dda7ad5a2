"""Speed, beside a peer that does the same work in the same run.

A suite is a module with `measure(options)`, which yields `Measurement`s.
"""

import dataclasses
import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.progress import wide_console

SUITES = {
    "data": "modernbert_jax.train.bench.data",
    "encode": "modernbert_jax.train.bench.encode",
    "train": "modernbert_jax.train.bench.train",
}
"""Modules by the name of their suite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a suite may be told."""

    input: tuple[str, ...] = ()
    """Files or globs of text; none means the sources of Python's standard library."""
    tokenizer: Path | None = None
    """Directory of a tokenizer, or its tokenizer.json; none means one trained on the text."""
    megabytes: float = 12.0
    """Text that is used, at most, in bytes / 1e6."""
    repeats: int = 3
    """Turns of each side, of which the best counts; `encode` takes fewer where one is long."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """A number of ours, and the peer's if it could be measured. More is better."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the peer's number ours is."""
        return self.ours / self.peer if self.peer else None


def run(suites: Sequence[str], options: Options) -> dict[str, list[Measurement]]:
    """Runs suites by name and shows each as a table. Raises `UserError` for an unknown name."""
    for name in suites:
        if name not in SUITES:
            raise UserError(f"no suite {name!r}; {did_you_mean(name, SUITES)}")
    found = {}
    for name in suites:
        found[name] = []
        for m in importlib.import_module(SUITES[name]).measure(options):
            peer = "" if m.peer is None else f", {m.peer_name}: {number(m.peer)}"
            print(f"{m.name}: {number(m.ours)} {m.unit}{peer}", file=sys.stderr, flush=True)
            found[name].append(m)
        show(name, found[name])
    return found


def show(suite: str, measurements: Sequence[Measurement]) -> None:
    """Prints a table."""
    table = Table(suite, "unit", box=None, pad_edge=False)
    for heading in ("ours", "peer", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("the peer")
    for m in measurements:
        peer, ratio = ("–" if x is None else number(x) for x in (m.peer, m.ratio))
        table.add_row(m.name, m.unit, number(m.ours), peer, ratio, m.peer_name)
    wide_console().print(table)


def rows(found: dict[str, list[Measurement]]) -> Iterator[dict]:
    """The measurements as JSON objects."""
    for suite, measurements in found.items():
        for m in measurements:
            yield {"suite": suite, **dataclasses.asdict(m), "ratio": m.ratio}


def number(value: float) -> str:
    """Whole above 100, three digits below."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

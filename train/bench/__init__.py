"""Benchmarks beside a peer that does the same work in the same run.

A suite is a module with `measure(options)`, which yields `Measurement`s.
"""

import dataclasses
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from modernbert_jax.errors import UserError, did_you_mean

SUITES = {
    "data": "modernbert_jax.train.bench.data",
    "encode": "modernbert_jax.train.bench.encode",
    "embed": "modernbert_jax.train.bench.embed",
    "train": "modernbert_jax.train.bench.train",
}
"""Modules by the name of their suite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Options of all suites."""

    input: tuple[str, ...] = ()
    """Files or globs of text. By default the sources of Python's standard library."""
    tokenizer: Path | None = None
    """Directory of a tokenizer, or its tokenizer.json. By default one is trained on the text."""
    megabytes: float = 12.0
    """Maximum amount of text, in bytes / 1e6."""
    repeats: int = 3
    """Rounds per side, of which the best counts; `encode` makes fewer if one is long."""
    texts: int = 20_000
    """Texts of `embed` with the small encoder; its base model gets a fortieth of them."""
    models: tuple[str, ...] = ()
    """Models of `embed`, small and base. By default both."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """Our number, and the peer's if it was measured. More is better."""

    name: str
    unit: str
    ours: float
    peer: float | None = None
    peer_name: str = ""

    @property
    def ratio(self) -> float | None:
        """Our number relative to the peer's."""
        return self.ours / self.peer if self.peer else None


def compared(
    name: str, unit: str, values: Mapping[str, float], peers: Mapping[str, str]
) -> Iterator[Measurement]:
    """Yield a measurement per measured peer, or one without a peer if there is none.

    Args:
        name: What was measured.
        unit: Unit of the values.
        values: Numbers by side; ours is "ours".
        peers: Descriptions of the peers by side.
    """
    for side in [side for side in peers if side in values] or [""]:
        yield Measurement(
            name=name,
            unit=unit,
            ours=values["ours"],
            peer=values.get(side),
            peer_name=peers.get(side, ""),
        )


def run(suites: Sequence[str], options: Options) -> dict[str, list[Measurement]]:
    """Run suites by name and show each as a table. Raises `UserError` for an unknown name."""
    for name in suites:
        if name not in SUITES:
            raise UserError(f"no suite {name!r}; {did_you_mean(name, SUITES)}")
    results: dict[str, list[Measurement]] = {}
    for name in suites:
        results[name] = []
        for m in importlib.import_module(SUITES[name]).measure(options):
            peer = "" if m.peer is None else f", {m.peer_name}: {number(m.peer)}"
            print(f"{m.name}: {number(m.ours)} {m.unit}{peer}", file=sys.stderr, flush=True)
            results[name].append(m)
        show(name, results[name])
    return results


def show(suite: str, measurements: Sequence[Measurement]) -> None:
    """Print a table."""
    from modernbert_jax.io.progress import wide_console  # imports jax, which options do not need

    table = Table(suite, "unit", box=None, pad_edge=False)
    for heading in ("ours", "peer", "ratio"):
        table.add_column(heading, justify="right")
    table.add_column("the peer")
    for m in measurements:
        peer, ratio = ("–" if x is None else number(x) for x in (m.peer, m.ratio))
        table.add_row(m.name, m.unit, number(m.ours), peer, ratio, m.peer_name)
    wide_console().print(table)


def rows(results: Mapping[str, Sequence[Measurement]]) -> Iterator[dict]:
    """Yield the measurements as JSON objects."""
    for suite, measurements in results.items():
        for m in measurements:
            yield {"suite": suite, **dataclasses.asdict(m), "ratio": m.ratio}


def number(value: float) -> str:
    """Format a number: whole from 100, three digits below."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"

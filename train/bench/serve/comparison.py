"""Servers side by side: the same requests, the check of their vectors, and the table."""

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from modernbert_jax.errors import UserError, did_you_mean

from .. import Options
from ..data import write_texts
from . import servers
from .load import Result, drive

OURS_TOLERANCE = 1e-5
"""Largest difference between our server's vectors and those of `encode`."""

PEER_TOLERANCE = 1e-3
"""Largest difference between a peer's vectors, of length 1, and those of `encode`."""

CHECKED = 32
"""Requests whose vectors are compared."""

_WORDS = (60, 0.9, 4, 320)
"""Median, spread, least and most words of a text: log-normal, as lengths of passages are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """The requests of every side."""

    requests: int = 1000
    """Requests in all."""
    connections: int = 64
    """Requests at the same time."""
    texts: int = 1
    """Texts of a request."""
    seed: int = 0


def compare(
    model: str,
    load: Load,
    input: Sequence[str],
    sides: Sequence[str],
    report: Callable[[str], None],
) -> Iterator[dict[str, Any]]:
    """Load every side, and yield its numbers.

    Args:
        model: a directory that all sides read.
        load: the requests.
        input: files or globs of text; none takes the sources of Python's standard library.
        sides: keys of `servers.installed()`; none is all of them.
        report: called with a line per side.

    Raises:
        UserError: an unknown side.
        RuntimeError: a side that does not start, loses requests or gives other vectors.
    """
    known = servers.installed()
    for name in sides:
        if name not in known:
            raise UserError(f"no side {name!r} is installed; {did_you_mean(name, known)}")
    requests = _requests(load, input)
    want = _encoded(model, requests[:CHECKED])
    with tempfile.TemporaryDirectory() as folder:
        for name in sides or known:
            side = known[name]
            bodies = [orjson.dumps(side.body(texts)) for texts in requests]
            log = Path(folder) / f"{name}.log"
            with servers.running(side, model, log) as port:
                drive(port, side.path, bodies[: 2 * load.connections], load.connections)
                result = drive(port, side.path, bodies, load.connections, CHECKED)
            difference = _difference(side, result, want)
            if result.lost:
                raise RuntimeError(f"{side.title} lost {result.lost:,} of {len(bodies):,} requests")
            if not difference <= (OURS_TOLERANCE if name == "ours" else PEER_TOLERANCE):
                raise RuntimeError(f"vectors of {side.title} differ by {difference:.1e}")
            row = {
                "side": name,
                "title": side.title,
                "requests_per_second": result.per_second,
                **{f"p{share}_ms": result.percentile(share) for share in (50, 95, 99)},
                "largest_difference": difference,
                **dataclasses.asdict(load),
            }
            report(
                f"{side.title}: {row['requests_per_second']:.1f} requests/s, p50"
                f" {row['p50_ms']:.0f} ms, p95 {row['p95_ms']:.0f} ms, p99 {row['p99_ms']:.0f} ms"
            )
            yield row


def show(rows: Sequence[dict[str, Any]]) -> None:
    """Print the numbers of all sides as a table."""
    from rich.table import Table

    from modernbert_jax.io.progress import wide_console

    table = Table("server", box=None, pad_edge=False)
    for heading in ("requests/s", "p50 ms", "p95 ms", "p99 ms", "ours is faster by"):
        table.add_column(heading, justify="right")
    ours = next((row["requests_per_second"] for row in rows if row["side"] == "ours"), None)
    for row in rows:
        speed = row["requests_per_second"]
        ratio = "–" if ours is None or row["side"] == "ours" else f"{ours / speed:.2f}x"
        latencies = [f"{row[f'p{share}_ms']:.0f}" for share in (50, 95, 99)]
        table.add_row(row["title"], f"{speed:.1f}", *latencies, ratio)
    wide_console().print(table)


def _requests(load: Load, input: Sequence[str]) -> list[list[str]]:
    """Texts of each request, of mixed lengths."""
    rng = np.random.default_rng(load.seed)
    with tempfile.TemporaryDirectory() as folder:
        file = write_texts(Options(input=tuple(input), megabytes=4.0), Path(folder) / "text.jsonl")
        words = [
            w for line in file.read_text().splitlines() for w in json.loads(line)["text"].split()
        ]
    median, spread, least, most = _WORDS

    def text() -> str:
        count = int(np.clip(rng.lognormal(np.log(median), spread), least, most))
        start = int(rng.integers(0, max(len(words) - count, 1)))
        return " ".join(word[:30] for word in words[start : start + count])

    return [[text() for _ in range(load.texts)] for _ in range(load.requests)]


def _encoded(model: str, requests: Sequence[list[str]]) -> list[np.ndarray]:
    """Vectors of each request's texts by `encode`."""
    from modernbert_jax import ModernBert

    bert = ModernBert.from_pretrained(model)
    flat = bert.encode([t for texts in requests for t in texts], normalize=True)
    return np.split(flat, np.cumsum([len(texts) for texts in requests])[:-1])


def _difference(side: servers.Side, result: Result, want: Sequence[np.ndarray]) -> float:
    """Largest difference between a side's vectors and those of `encode`."""
    differences = [
        np.abs(np.asarray(side.vectors(orjson.loads(body))) - want[number]).max()
        for number, body in result.bodies.items()
    ]
    return float(max(differences, default=np.inf))

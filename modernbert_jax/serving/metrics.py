"""Counters, gauges and histograms of the server, in Prometheus' text format."""

import bisect
from collections.abc import Callable, Sequence

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper limits of the buckets of times, in seconds."""

Labels = tuple[tuple[str, str], ...]


class Counter:
    """Sums that only grow, one for each set of labels."""

    kind = "counter"

    def __init__(self) -> None:
        self.values: dict[Labels, float] = {}

    def add(self, amount: float = 1.0, **labels: str) -> None:
        """Add to the sum of these labels."""
        key = tuple(labels.items())
        self.values[key] = self.values.get(key, 0.0) + amount

    def lines(self, name: str) -> list[str]:
        """The sums in the text format."""
        return [f"{name}{_braces(key)} {value:g}" for key, value in self.values.items()]


class Gauge:
    """A number that is read when it is asked for."""

    kind = "gauge"

    def __init__(self, read: Callable[[], float]):
        self._read = read

    def lines(self, name: str) -> list[str]:
        """The number in the text format."""
        return [f"{name} {self._read():g}"]


class Histogram:
    """Counts of times by bucket, for each set of labels."""

    kind = "histogram"

    def __init__(self, limits: Sequence[float] = SECONDS):
        self._limits = limits
        self._counts: dict[Labels, list[int]] = {}
        self._sums: dict[Labels, float] = {}

    def observe(self, value: float, **labels: str) -> None:
        """Count a time in seconds."""
        key = tuple(labels.items())
        counts = self._counts.setdefault(key, [0] * (len(self._limits) + 1))
        counts[bisect.bisect_left(self._limits, value)] += 1
        self._sums[key] = self._sums.get(key, 0.0) + value

    def lines(self, name: str) -> list[str]:
        """The cumulative counts of buckets, the sum and the count, in the text format."""
        lines = []
        for key, counts in self._counts.items():
            total = 0
            for limit, count in zip((*map(str, self._limits), "+Inf"), counts, strict=True):
                total += count
                lines.append(f"{name}_bucket{_braces((*key, ('le', limit)))} {total}")
            lines.append(f"{name}_sum{_braces(key)} {self._sums[key]:g}")
            lines.append(f"{name}_count{_braces(key)} {total}")
        return lines


def _braces(labels: Labels) -> str:
    escaped = (
        (name, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n"))
        for name, value in labels
    )
    inner = ",".join(f'{name}="{value}"' for name, value in escaped)
    return f"{{{inner}}}" if inner else ""


class Metrics:
    """All numbers of a server; `text` shows them."""

    def __init__(self) -> None:
        self.requests = Counter()
        self.seconds = Histogram()
        self.texts = Counter()
        self.tokens = Counter()
        self.batches = Counter()
        self.padding = Counter()
        self.batch_seconds = Histogram()
        self.abandoned = Counter()
        self._all: dict[str, tuple[str, Counter | Gauge | Histogram]] = {
            "requests_total": ("Requests by route and status.", self.requests),
            "request_seconds": ("Time from a request to its response.", self.seconds),
            "texts_total": ("Texts that requests brought.", self.texts),
            "tokens_total": ("Tokens of documents in batches.", self.tokens),
            "padding_tokens_total": ("Tokens of padding in batches.", self.padding),
            "batches_total": ("Batches by program and shape.", self.batches),
            "batch_seconds": ("Time of a batch on the device.", self.batch_seconds),
            "abandoned_requests_total": ("Requests whose client went away.", self.abandoned),
        }

    def gauge(self, name: str, summary: str, read: Callable[[], float]) -> None:
        """Add a number that is read for every scrape."""
        self._all[name] = (summary, Gauge(read))

    def text(self) -> str:
        """All numbers in Prometheus' text format."""
        lines = []
        for name, (summary, metric) in self._all.items():
            name = f"modernbert_jax_{name}"
            lines += [f"# HELP {name} {summary}", f"# TYPE {name} {metric.kind}"]
            lines += metric.lines(name)
        return "\n".join(lines) + "\n"

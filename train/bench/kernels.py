"""Times of every attention implementation on the device at hand, and a recommendation.

Times are medians of single synchronous calls, after the call that compiles. The recommendation is a
tuning file that `modernbert_jax.attention` reads.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from modernbert_jax.attention import Call, choice, key_ranges, tuning
from modernbert_jax.packing import pack
from modernbert_jax.train.bench.device.recommendation import fastest

KERNELS = ("splash", "pallas_tpu", "pallas_triton")
"""Kernels that a CPU interprets, so that their speed is meaningless there."""

DENSE_UP_TO = 2048
"""Longest row for dense attention, whose scores would otherwise exceed the memory of devices."""

WINDOW = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelShape:
    """Shape of the timed calls, which have `tokens / length` rows."""

    lengths: tuple[int, ...]
    """Tokens per row, one or several."""
    tokens: int
    heads: int
    head_dim: int
    dtype: str


class Case(NamedTuple):
    """A kind of layer and its rows."""

    kind: str
    length: int
    documents: str
    segment_ids: np.ndarray

    @property
    def window(self) -> int | None:
        return WINDOW if self.kind == "sliding" else None


KernelOptions = tuple[tuple[str, int], ...]
"""Names and values of an implementation's options, sorted."""


class Time(NamedTuple):
    """Milliseconds of one call, forward and with the backward pass."""

    case: Case
    name: str
    options: KernelOptions
    forward: float
    both: float


Report = Callable[[str], None]


def default_shape() -> KernelShape:
    """The shape of ModernBERT-base, with fewer tokens on a CPU."""
    if jax.default_backend() == "cpu":
        return KernelShape(lengths=(512, 1024), tokens=1024, heads=12, head_dim=64, dtype="float32")
    lengths = (512, 1024, 2048, 4096, 8192)
    return KernelShape(lengths=lengths, tokens=16384, heads=12, head_dim=64, dtype="bfloat16")


def measure(shape: KernelShape, repeats: int, sweep: bool, report: Report) -> list[Time]:
    """Time every implementation and jax's own attention for every case.

    Args:
        shape: Shape of the calls.
        repeats: Timed calls, of which the median counts.
        sweep: Whether to tune the options of our kernels first, on the longest packed rows.
        report: Receives a line for whatever cannot be used, with the reason.
    """
    times = []
    for kind in tuning.KINDS:
        options: dict[str, KernelOptions] = {}
        for case in cases(shape, kind):
            for name, module in _supported(case, shape, report):
                if name not in options:
                    options[name] = _tuned(name, case, shape)
                    if sweep and (groups := getattr(module, "SWEEP", ())):
                        time_with = functools.partial(
                            _time, name, case=case, shape=shape, repeats=repeats
                        )

                        def tell(line: str, name: str = name) -> None:
                            report(f"{name} {line}")

                        options[name] = best_options(groups, dict(options[name]), time_with, tell)
                times.append(_time(name, options[name], case, shape, repeats))
            times += _peers(case, shape, repeats, report)
    return times


def show(times: list[Time]) -> None:
    """Print a table."""
    table = Table("layer", "row", "documents", "implementation", box=None, pad_edge=False)
    for heading in ("forward ms", "both ms", "tokens/s, both"):
        table.add_column(heading, justify="right")
    for t in times:
        speed = f"{1e3 * t.case.segment_ids.size / t.both:,.0f}"
        numbers = (f"{t.forward:.3g}", f"{t.both:.3g}", speed)
        table.add_row(t.case.kind, f"{t.case.length:,}", t.case.documents, t.name, *numbers)
    Console(width=120).print(table)


def recommend(times: list[Time], shape: KernelShape) -> dict[str, Any]:
    """The content of a tuning file: the fastest implementation for each kind of layer.

    The geometric mean over all cases of forward and backward together decides.
    """
    entries = {}
    for kind in tuning.KINDS:
        ours = [t for t in times if t.case.kind == kind and t.name in choice.IMPLEMENTATIONS]
        by_name: dict[str, dict[tuple[int, str], float]] = {}
        for t in ours:
            by_name.setdefault(t.name, {})[t.case.length, t.case.documents] = t.both
        best = fastest(by_name)
        options = dict(next(t.options for t in ours if t.name == best))
        entry = {"implementation": best} | ({best: options} if options else {})
        entries[f"{kind} {shape.head_dim} {shape.dtype}"] = entry
    table = {jax.devices()[0].device_kind: entries}
    tuning.parse(table, "recommendation")
    return table


def cases(shape: KernelShape, kind: str) -> Iterator[Case]:
    """Yield cases, longest rows first: packed documents, and one document per row."""
    for length in sorted(shape.lengths, reverse=True):
        rows = max(1, shape.tokens // length)
        yield Case(kind, length, "packed", packed_rows(rows, length))
        yield Case(kind, length, "one document", np.ones((rows, length), np.int32))


def packed_rows(rows: int, length: int, median: float = 400.0) -> np.ndarray:
    """Segment ids of full rows of documents with lognormal lengths, at most `length`."""
    rng = np.random.default_rng(0)
    draws = rng.lognormal(np.log(median), 1.0, size=max(64, 4 * rows * length // int(median)))
    lengths = np.clip(draws, 16, length).astype(int).tolist()
    ids = np.zeros((rows, length), np.int32)
    for row, documents in zip(ids, pack(lengths, length), strict=False):
        ends = np.cumsum([lengths[i] for i in documents])
        for number, (end, i) in enumerate(zip(ends, documents, strict=True), start=1):
            row[end - lengths[i] : end] = number
    return ids


def _supported(case: Case, shape: KernelShape, report: Report) -> Iterator[tuple[str, Any]]:
    """Yield implementations for a case, with their modules."""
    call = Call.traced(
        dtype=shape.dtype,
        length=case.length,
        heads=shape.heads,
        head_dim=shape.head_dim,
        window=case.window,
        symmetric=True,
    )
    for name in choice.IMPLEMENTATIONS:
        if name in KERNELS and call.platform == "cpu":
            continue
        if name == "dense" and case.length > DENSE_UP_TO:
            continue
        reason = choice.refusal(name, call)
        if reason is None:
            yield name, choice.module_of(name)
        else:
            report(f"{case.kind}, {case.length} tokens: not {name}: {reason}")


def _tuned(name: str, case: Case, shape: KernelShape) -> KernelOptions:
    kind = jax.devices()[0].device_kind
    return tuning.lookup(kind, case.kind, shape.head_dim, shape.dtype).options_of(name)


def best_options(
    groups: Iterable[Iterable[dict[str, int]]],
    start: dict[str, int],
    time_with: Callable[[KernelOptions], Time],
    report: Report,
) -> KernelOptions:
    """Choose the fastest options of each group in turn, beginning with `start`."""
    best = dict(start)
    for group in groups:
        times = []
        for options in group:
            try:
                times.append(time_with(tuple(sorted((best | options).items()))))
            except Exception as error:
                report(f"{options}: {str(error).splitlines()[0]}")
        if times:
            best = dict(min(times, key=lambda t: t.both).options)
    return tuple(sorted(best.items()))


def _time(name: str, options: KernelOptions, case: Case, shape: KernelShape, repeats: int) -> Time:
    module = choice.module_of(name)

    def out(q, k, v, ranges):
        return module.attention(q, k, v, ranges, window=case.window, **dict(options))

    return _timed(out, name, options, case, shape, repeats)


def _peers(case: Case, shape: KernelShape, repeats: int, report: Report) -> Iterator[Time]:
    """Time jax's own attention on rows of one document, for which it computes the same."""
    if case.documents != "one document":
        return
    sides = {} if case.window is None else {"local_window_size": WINDOW // 2}
    for implementation in ("xla", "cudnn"):
        if implementation == "xla" and case.length > DENSE_UP_TO:
            continue
        if implementation == "cudnn" and jax.default_backend() != "gpu":
            continue

        def out(q, k, v, ranges, implementation=implementation):
            return jax.nn.dot_product_attention(q, k, v, implementation=implementation, **sides)

        name = f"jax.nn {implementation}"
        try:
            yield _timed(out, name, (), case, shape, repeats)
        except Exception as error:
            report(f"{case.kind}, {case.length} tokens: not {name}: {str(error).splitlines()[0]}")


def _timed(
    out: Callable[..., jax.Array],
    name: str,
    options: KernelOptions,
    case: Case,
    shape: KernelShape,
    repeats: int,
) -> Time:
    rng = np.random.default_rng(0)
    size = (len(case.segment_ids), case.length, shape.heads, shape.head_dim)
    q, k, v, cotangent = (jnp.asarray(rng.standard_normal(size), shape.dtype) for _ in range(4))
    ranges = jax.jit(functools.partial(key_ranges, window=case.window))(case.segment_ids)

    def both(q, k, v, cotangent, ranges):
        return jax.vjp(lambda *x: out(*x, ranges), q, k, v)[1](cotangent)

    forward = _median(jax.jit(out), (q, k, v, ranges), repeats)
    return Time(
        case, name, options, forward, _median(jax.jit(both), (q, k, v, cotangent, ranges), repeats)
    )


def _median(function: Callable[..., Any], arguments: tuple, repeats: int) -> float:
    """Median milliseconds of a call."""
    jax.block_until_ready(function(*arguments))
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)

"""Attention by every implementation that the device at hand has, and which one to take there.

Times are medians of single calls, each waited for, after the call that compiles. A tuning file
comes out of it that `modernbert_jax.attention` reads.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from modernbert_jax.attention import Call, choice, key_ranges, platform, tuning
from modernbert_jax.packing import pack

KERNELS = ("splash", "pallas_tpu", "pallas_triton")
"""Interpreted on CPU, where their speed means nothing."""

DENSE_UP_TO = 2048
"""Tokens; beyond, all scores of a row would fill the memory of many devices."""

WINDOW = 128


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelShape:
    """What is timed: `tokens / length` rows."""

    lengths: tuple[int, ...]
    """Tokens in a row."""
    tokens: int
    heads: int
    head_dim: int
    dtype: str


class Case(NamedTuple):
    """A kind of layer and rows for it."""

    kind: str
    length: int
    documents: str
    segment_ids: np.ndarray

    @property
    def window(self) -> int | None:
        return WINDOW if self.kind == "sliding" else None


class Time(NamedTuple):
    """Milliseconds of one call."""

    case: Case
    name: str
    options: tuple[tuple[str, int], ...]
    forward: float
    both: float


Report = Callable[[str], None]


def default_shape() -> KernelShape:
    """ModernBERT-base; small on CPU."""
    if jax.default_backend() == "cpu":
        return KernelShape(lengths=(512, 1024), tokens=1024, heads=12, head_dim=64, dtype="float32")
    lengths = (512, 1024, 2048, 4096, 8192)
    return KernelShape(lengths=lengths, tokens=16384, heads=12, head_dim=64, dtype="bfloat16")


def measure(shape: KernelShape, repeats: int, sweep: bool, report: Report) -> list[Time]:
    """Times of every implementation and of jax's own attention, for every case.

    What cannot be used is reported with the reason. With `sweep` the options of our kernels are
    tried first, on the longest packed rows of either kind.
    """
    found = []
    for kind in tuning.KINDS:
        options = {}
        for case in cases(shape, kind):
            for name, module in _supported(case, shape, report):
                if name not in options:
                    options[name] = _tuned(name, case, shape)
                    if sweep and (groups := getattr(module, "SWEEP", ())):
                        options[name] = _sweep(name, groups, case, shape, repeats, report)
                found.append(_time(name, options[name], case, shape, repeats))
            found += _peers(case, shape, repeats, report)
    return found


def show(times: list[Time]) -> None:
    """Prints a table."""
    table = Table("layer", "row", "documents", "implementation", box=None, pad_edge=False)
    for heading in ("forward ms", "both ms", "tokens/s, both"):
        table.add_column(heading, justify="right")
    for t in times:
        speed = f"{1e3 * t.case.segment_ids.size / t.both:,.0f}"
        numbers = (f"{t.forward:.3g}", f"{t.both:.3g}", speed)
        table.add_row(t.case.kind, f"{t.case.length:,}", t.case.documents, t.name, *numbers)
    Console(width=120).print(table)


def recommend(times: list[Time], shape: KernelShape) -> dict[str, Any]:
    """A tuning file: for each kind of layer what was fastest, forward and backward, in all."""
    entries = {}
    for kind in tuning.KINDS:
        ours = [t for t in times if t.case.kind == kind and t.name in choice.IMPLEMENTATIONS]
        cases = {(t.case.length, t.case.documents) for t in ours}
        total = {}
        for name in {t.name for t in ours}:
            mine = [t.both for t in ours if t.name == name]
            if len(mine) == len(cases):
                total[name] = statistics.geometric_mean(mine)
        best = min(total, key=total.__getitem__)
        options = dict(next(t.options for t in ours if t.name == best))
        entry = {"implementation": best} | ({best: options} if options else {})
        entries[f"{kind} {shape.head_dim} {shape.dtype}"] = entry
    table = {jax.devices()[0].device_kind: entries}
    tuning.parse(table, "recommendation")
    return table


def cases(shape: KernelShape, kind: str) -> Iterator[Case]:
    """The longest rows first: one document in each, and documents of all lengths."""
    for length in sorted(shape.lengths, reverse=True):
        rows = max(1, shape.tokens // length)
        yield Case(kind, length, "packed", packed_rows(rows, length))
        yield Case(kind, length, "one document", np.ones((rows, length), np.int32))


def packed_rows(rows: int, length: int, median: float = 400.0) -> np.ndarray:
    """Segment ids of full rows with documents of lognormal lengths, cut at the length."""
    rng = np.random.default_rng(0)
    draws = rng.lognormal(np.log(median), 1.0, size=max(64, 4 * rows * length // int(median)))
    lengths = np.clip(draws, 16, length).astype(int).tolist()
    ids = np.zeros((rows, length), np.int32)
    for row, documents in zip(ids, pack(lengths, length), strict=False):
        ends = np.cumsum([lengths[i] for i in documents])
        for number, (end, i) in enumerate(zip(ends, documents, strict=True), start=1):
            row[end - lengths[i] : end] = number
    return ids


def _supported(case: Case, shape: KernelShape, report: Report):
    call = Call(
        platform=jax.default_backend(),
        device_kind=jax.devices()[0].device_kind,
        capability=platform.capability(),
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


def _tuned(name: str, case: Case, shape: KernelShape) -> tuple[tuple[str, int], ...]:
    kind = jax.devices()[0].device_kind
    return tuning.lookup(kind, case.kind, shape.head_dim, shape.dtype).options_of(name)


def _sweep(name, groups, case, shape, repeats, report) -> tuple[tuple[str, int], ...]:
    """The best options of each group in turn, with what is best in those before."""
    best = dict(_tuned(name, case, shape))
    for group in groups:
        tried = []
        for options in group:
            given = tuple(sorted((best | options).items()))
            try:
                tried.append(_time(name, given, case, shape, repeats))
            except Exception as error:
                report(f"{name} {options}: {str(error).splitlines()[0]}")
        if tried:
            best = dict(min(tried, key=lambda t: t.both).options)
    return tuple(sorted(best.items()))


def _time(name, options, case: Case, shape: KernelShape, repeats: int) -> Time:
    module = choice.module_of(name)

    def out(q, k, v, ranges):
        return module.attention(q, k, v, ranges, window=case.window, **dict(options))

    return _timed(out, name, options, case, shape, repeats)


def _peers(case: Case, shape: KernelShape, repeats: int, report: Report) -> Iterator[Time]:
    """jax's own attention on rows of one document, where it computes the same."""
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


def _timed(out, name, options, case: Case, shape: KernelShape, repeats: int) -> Time:
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


def _median(function, arguments, repeats: int) -> float:
    jax.block_until_ready(function(*arguments))
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - start)
    return 1e3 * statistics.median(taken)

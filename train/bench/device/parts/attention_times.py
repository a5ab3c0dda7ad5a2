"""Times of every implementation of attention, beside jax's own."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from modernbert_jax.attention import KeyRanges, key_ranges

from .. import cases, timing
from ..cases import Layer, Options
from ..registry import register
from ..results import Number, Numbers, Result, attempt
from ..scale import Scale
from .ceilings import rates

DOCUMENTS = ("documents", "one document")

INTERPRETED = ("splash", "pallas_tpu", "pallas_triton")
"""Kernels that a CPU interprets."""

BOTH_PASSES = 3.5
"""Operations of both passes relative to the forward pass: seven products, not two."""


class Key(NamedTuple):
    """A program to time."""

    layer: Layer
    name: str
    options: Options
    passes: str
    """"forward" or "both"."""


@register("kernels", group="kernels", order=30, seconds=60)
def kernels(scale: Scale) -> Iterator[Result]:
    """Both passes of every implementation and of jax's own attention."""
    for length in scale.time_lengths:
        compiled = dict(timing.compile_all(programs(length, scale)))
        for layer, name, options in dict.fromkeys((k.layer, k.name, k.options) for k in compiled):
            for documents in DOCUMENTS:
                if name in PEERS and documents != "one document":
                    continue  # they know no documents
                pair = [compiled[Key(layer, name, options, p)] for p in ("forward", "both")]
                measure = partial(measured, pair, layer, documents, scale)
                labels = layer.labels(name) | {"documents": documents}
                peer = name in PEERS
                yield attempt(layer.name(documents, name), labels, measure, peer=peer)


def programs(length: int, scale: Scale) -> Iterator[tuple[Key, timing.Program]]:
    """Forward pass and both passes of all that supports rows of a length."""
    for kind in cases.WINDOWS:
        layer = Layer(kind, length, dtype(scale))
        for name, why in cases.implementations(layer, scale):
            if why or (scale.tiny and name in INTERPRETED):
                continue  # the checks say why; times of an interpreter mean nothing
            options = cases.options(name, layer, scale)
            yield from _pair(layer, name, options, cases.forward(name, layer, options), scale)
        for name, supports in PEERS.items():
            if supports(layer, scale):
                yield from _pair(layer, name, (), partial(_peer, name, layer), scale)


def measured(
    pair: list[Callable | Exception], layer: Layer, documents: str, scale: Scale
) -> Numbers:
    """Milliseconds of both programs, and what both passes together reach."""
    forward, both = (timing.ready(program) for program in pair)
    ids = segments(layer, documents, scale)
    ranges = jax.jit(partial(key_ranges, window=layer.window))(ids)
    q, k, v, cotangent = cases.operands(layer, len(ids), scale)
    at_least, repeats = scale.timed_seconds, scale.repeats
    alone = timing.seconds(lambda: forward(q, k, v, ranges), at_least, repeats)
    taken = timing.seconds(lambda: both(q, k, v, ranges, cotangent), at_least, repeats)
    flops = BOTH_PASSES * forward_flops(ranges, scale)
    # Forward q, k, v and o; backward q, k, v, o, do and dq, dk, dv.
    moved = (4 + 8) * q.size * q.dtype.itemsize
    numbers = {"forward": Number(1e3 * alone, "ms")} | rates(flops, moved, taken, scale, "both")
    numbers["forward rate"] = Number(flops / BOTH_PASSES / alone / 1e12, "TFLOP/s")
    return numbers


def segments(layer: Layer, documents: str, scale: Scale) -> np.ndarray:
    """Segment ids of full rows, one document each or documents of lognormal lengths."""
    count = rows(layer, scale)
    if documents == "one document":
        return np.ones((count, layer.length), np.int32)
    return cases.segments(cases.lognormal(layer.length, count), layer.length)


def rows(layer: Layer, scale: Scale) -> int:
    """Rows of a timed call."""
    return max(1, scale.time_tokens // layer.length)


def forward_flops(ranges: KeyRanges, scale: Scale) -> float:
    """Operations of the two products of the forward pass, for the keys in the ranges alone."""
    first, last = (np.asarray(x, np.int64) for x in (ranges.first, ranges.last))
    pairs = int(np.maximum(last - first + 1, 0).sum())
    return 4.0 * pairs * scale.heads * scale.head_dim


def _pair(
    layer: Layer, name: str, options: Options, function: Callable, scale: Scale
) -> Iterator[tuple[Key, timing.Program]]:
    arguments = cases.shapes(layer, rows(layer, scale), scale)
    yield Key(layer, name, options, "forward"), timing.Program(function, arguments[:4])
    yield Key(layer, name, options, "both"), timing.Program(cases.both(function), arguments)


def _peer(name: str, layer: Layer, q, k, v, ranges) -> jax.Array:
    """jax's own attention of one document a row."""
    options: dict[str, Any] = {"implementation": name.removeprefix("jax.nn ")}
    if layer.window is not None:
        options["local_window_size"] = layer.window // 2
    return jax.nn.dot_product_attention(q, k, v, **options)


PEERS: dict[str, Callable[[Layer, Scale], bool]] = {
    "jax.nn xla": lambda layer, scale: layer.length <= 2048,
    "jax.nn cudnn": lambda layer, scale: scale.platform == "gpu",
}
"""jax's own attention, and where it is timed: all scores of long rows do not fit."""


def dtype(scale: Scale) -> str:
    """Type of timed operands."""
    return "bfloat16" if "bfloat16" in scale.dtypes else scale.dtypes[0]

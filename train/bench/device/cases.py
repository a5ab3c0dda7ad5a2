"""Attention's programs: every implementation, both passes, on packed rows of all kinds."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax import platform
from modernbert_jax.attention import Call, KeyRanges, choice, dense, key_ranges, tuning
from modernbert_jax.errors import UserError
from modernbert_jax.packing import pack

from .scale import Scale

WINDOWS = {"full": None, "sliding": 128}
"""Window of each kind of layer; that of every published ModernBERT."""

Options = tuple[tuple[str, int], ...]


class Layer(NamedTuple):
    """What attention is computed for."""

    kind: str
    length: int
    dtype: str

    @property
    def window(self) -> int | None:
        """Window in tokens, or None."""
        return WINDOWS[self.kind]

    def labels(self, implementation: str) -> dict[str, str]:
        """Columns of a table."""
        return {
            "layer": self.kind,
            "tokens": f"{self.length:,}",
            "type": self.dtype,
            "implementation": implementation,
        }

    def name(self, *more: str) -> str:
        """Identifies a result."""
        return " ".join((self.kind, str(self.length), self.dtype, *more))


def refusal(name: str, layer: Layer, scale: Scale) -> str | None:
    """Why an implementation cannot compute a layer on the device that is traced for."""
    call = Call.traced(
        dtype=layer.dtype,
        length=layer.length,
        heads=scale.heads,
        head_dim=scale.head_dim,
        window=layer.window,
        symmetric=True,
    )
    return choice.refusal(name, call)


def options(name: str, layer: Layer, scale: Scale) -> Options:
    """Tuned options of an implementation on the device that is traced for."""
    kind = platform.device()[1]
    return tuning.lookup(kind, layer.kind, scale.head_dim, layer.dtype).options_of(name)


def forward(name: str, layer: Layer, options: Options) -> Callable[..., jax.Array]:
    """`f(q, k, v, ranges)` by an implementation with options."""
    module = choice.module_of(name)

    def function(q, k, v, ranges):
        return module.attention(q, k, v, ranges, window=layer.window, **dict(options))

    return function


def both(function: Callable[..., jax.Array]) -> Callable[..., tuple[jax.Array, ...]]:
    """`f(q, k, v, ranges, cotangent)`: the output of a forward function, and dq, dk, dv."""

    def passes(q, k, v, ranges, cotangent):
        out, pull = jax.vjp(lambda *x: function(*x, ranges), q, k, v)
        return out, *pull(cotangent)

    return passes


def oracle(q, k, v, ranges: KeyRanges, cotangent) -> tuple[jax.Array, ...]:
    """Both passes by the definition in float32, one head at a time: all heads may not fit."""

    def head(arrays):
        q, k, v, cotangent = (x.astype(jnp.float32)[:, :, None] for x in arrays)
        exact = both(lambda q, k, v, r: dense.attention(q, k, v, r, window=None))
        return tuple(x[:, :, 0] for x in exact(q, k, v, ranges, cotangent))

    by_head = (x.swapaxes(0, 2).swapaxes(1, 2) for x in (q, k, v, cotangent))
    return tuple(x.transpose(1, 2, 0, 3) for x in jax.lax.map(head, tuple(by_head)))


def shapes(layer: Layer, rows: int, scale: Scale) -> tuple[Any, ...]:
    """q, k, v, ranges and cotangent as shapes."""
    x = jax.ShapeDtypeStruct((rows, layer.length, scale.heads, scale.head_dim), layer.dtype)
    ids = jax.ShapeDtypeStruct((rows, layer.length), jnp.int32)
    return x, x, x, jax.eval_shape(lambda i: key_ranges(i, layer.window), ids), x


def operands(layer: Layer, rows: int, scale: Scale) -> tuple[jax.Array, ...]:
    """Random q, k, v and cotangent; logits have a standard deviation of 2."""
    keys = jax.random.split(jax.random.key(0), 4)
    size = (rows, layer.length, scale.heads, scale.head_dim)
    draw = jax.jit(lambda key, by: (by * jax.random.normal(key, size)).astype(layer.dtype))
    return tuple(draw(key, by) for key, by in zip(keys, (2.0, 1.0, 1.0, 1.0), strict=True))


def layouts(length: int) -> Iterator[tuple[str, np.ndarray]]:
    """Segment ids [1, T] of every kind of packed row."""
    documents = {
        "one document": [length],
        "documents": lognormal(length, 1)[0],
        "short documents": [16] * (length // 16),
        "single tokens": [1] * length,
        "around blocks": [63, 65, *_filled([127, 129, 128], length - 128)],
        "padded tail": [length // 2 + 1, length // 8 + 3],
        "padding only": [],
    }
    for name, lengths in documents.items():
        yield name, segments([lengths], length)


def lognormal(length: int, rows: int, median: float = 400.0) -> list[list[int]]:
    """Lengths of the documents of full rows, lognormal and cut at the row's length."""
    median = min(median, length / 4)
    rng = np.random.default_rng(0)
    draws = rng.lognormal(np.log(median), 1.0, size=max(64, 8 * rows * length // int(median)))
    lengths = np.clip(draws, 8, length).astype(int).tolist()
    packed = [[lengths[i] for i in row] for row in pack(lengths, length)[:rows]]
    return [[*row, length - sum(row)] if sum(row) < length else row for row in packed]


def segments(documents: list[list[int]], length: int) -> np.ndarray:
    """Segment ids [B, T] from the lengths of each row's documents."""
    ids = np.zeros((len(documents), length), np.int32)
    for row, lengths in zip(ids, documents, strict=True):
        counted = np.repeat(np.arange(1, len(lengths) + 1), lengths)
        row[: len(counted)] = counted
    return ids


def positions(segment_ids: np.ndarray) -> np.ndarray:
    """Positions [B, T] that count from 0 in every document."""
    here = np.arange(segment_ids.shape[1], dtype=np.int32)
    starts = np.diff(segment_ids, axis=1, prepend=0) != 0
    return here - np.maximum.accumulate(np.where(starts, here, 0), axis=1)


def implementations(layer: Layer, scale: Scale) -> Iterator[tuple[str, str | None]]:
    """Every implementation, with the reason why it cannot be used or None."""
    for name in choice.IMPLEMENTATIONS:
        if name == "dense":
            continue  # it is the oracle
        try:
            yield name, refusal(name, layer, scale)
        except UserError as error:
            yield name, str(error)


def _filled(pattern: list[int], length: int) -> list[int]:
    """The pattern again and again, cut off at a length."""
    lengths: list[int] = []
    while (left := length - sum(lengths)) > 0:
        lengths.append(min(pattern[len(lengths) % len(pattern)], left))
    return lengths

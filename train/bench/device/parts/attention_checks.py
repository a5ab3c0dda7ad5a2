"""Every implementation of attention against the oracle: both passes, all kinds of packed rows."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from modernbert_jax.attention import key_ranges

from .. import cases, timing
from ..cases import Layer
from ..registry import register
from ..results import FailedCheckError, Number, Numbers, Result, attempt
from ..scale import Scale

LIMITS = {"bfloat16": 1e-2, "float32": 1e-4}
"""Largest error relative to the oracle, root mean squares over an array."""

FLOOR = 2e-2
"""Root mean square below which errors are relative to this: gradients of single tokens are zero.

Those of a document of 8,192 tokens are about 0.1."""

OUTPUTS = ("out", "dq", "dk", "dv")


@register("attention", group="attention", order=20, seconds=60)
def attention(scale: Scale) -> Iterator[Result]:
    """A result for each implementation, kind of layer, length and type: its worst layout."""
    for length in scale.check_lengths:
        for dtype in scale.dtypes:
            yield from _compare(length, dtype, scale)


def programs(
    length: int, dtype: str, scale: Scale
) -> Iterator[tuple[tuple[Layer, str], timing.Program]]:
    """Both passes of every implementation that supports a row, for both kinds of layer."""
    for kind in cases.WINDOWS:
        layer = Layer(kind, length, dtype)
        for name, reason in cases.implementations(layer, scale):
            if reason is None:
                function = cases.both(cases.forward(name, layer, cases.options(name, layer, scale)))
                yield (layer, name), timing.Program(function, cases.shapes(layer, 1, scale))


def oracle_program(length: int, dtype: str, scale: Scale) -> timing.Program:
    """The oracle, which serves both kinds of layer."""
    shapes = cases.shapes(Layer("full", length, dtype), 1, scale)
    return timing.Program(cases.oracle, shapes)


def _compare(length: int, dtype: str, scale: Scale) -> Iterator[Result]:
    for kind in cases.WINDOWS:
        layer = Layer(kind, length, dtype)
        for name, reason in cases.implementations(layer, scale):
            if reason is not None:
                yield Result(
                    name=layer.name(name),
                    labels=layer.labels(name),
                    status="unsupported",
                    note=reason,
                )
    wanted = [("oracle", oracle_program(length, dtype, scale)), *programs(length, dtype, scale)]
    compiled = timing.compile_all(wanted)
    exact = timing.ready(next(compiled)[1])
    q, k, v, cotangent = cases.operands(Layer("full", length, dtype), 1, scale)
    expected: dict[tuple[str, str], Any] = {}
    for (layer, name), program in compiled:
        rows = {}
        for layout, ids in cases.layouts(length):
            ranges = jax.jit(partial(key_ranges, window=layer.window))(ids)
            if (layer.kind, layout) not in expected:
                actual = exact(q, k, v, ranges, cotangent)
                expected[layer.kind, layout] = [np.asarray(x) for x in actual]
            rows[layout] = ids, ranges, expected[layer.kind, layout]
        measure = partial(_worst, program, (q, k, v), cotangent, rows, LIMITS[dtype])
        yield attempt(layer.name(name), layer.labels(name), measure)


def _worst(
    program: Callable | Exception,
    qkv: tuple[jax.Array, ...],
    cotangent: jax.Array,
    rows: dict[str, tuple],
    limit: float,
) -> Numbers:
    """The largest errors over all layouts."""
    run, errors = timing.ready(program), dict.fromkeys(OUTPUTS, 0.0)
    wrong: list[str] = []
    for layout, (ids, ranges, expected) in rows.items():
        outputs = run(*qkv, ranges, cotangent)
        for output, x, exact in zip(OUTPUTS, outputs, expected, strict=True):
            error, in_padding = (float(e) for e in _error(x, exact, ids))
            errors[output] = max(errors[output], error) if error == error else error
            if not error <= limit:
                wrong.append(f"{output} of {layout} is off by {error:.1e}")
            if in_padding != 0:
                wrong.append(f"{output} of {layout} is not zero on padding")
    numbers = {name: Number(error, "") for name, error in errors.items()}
    if wrong:
        raise FailedCheckError("; ".join(wrong[:4]), numbers)
    return numbers


@jax.jit
def _error(x: jax.Array, exact: jax.Array, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Relative error, and the largest value on padding."""
    x, exact = x.astype(jnp.float32), jnp.asarray(exact)
    padding = (jnp.asarray(ids) == 0)[..., None, None]
    off = jnp.sqrt(jnp.mean((x - exact) ** 2))
    size = jnp.maximum(jnp.sqrt(jnp.mean(exact**2)), FLOOR)
    return off / size, jnp.max(jnp.where(padding, jnp.abs(x), 0.0))

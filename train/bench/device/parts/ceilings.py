"""What the device reaches in a large product and a large copy: the ceilings of all other parts."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp

from modernbert_jax.train.engine import hardware

from ..registry import register
from ..results import Number, Numbers, Result, attempt
from ..scale import Scale
from ..timing import seconds


@register("ceilings", group="ceilings", order=10, seconds=12)
def ceilings(scale: Scale) -> Iterator[Result]:
    """Operations per second of a bfloat16 product, and bytes per second of a copy."""
    size = 128 if scale.tiny else 8192
    yield attempt(
        "product",
        {"what": f"{size:,} x {size:,} x {size:,} bfloat16"},
        lambda: _product(size, scale),
    )
    count = 2**16 if scale.tiny else 2**29
    yield attempt("copy", {"what": f"{4 * count / 1e9:.3g} GB read"}, lambda: _copy(count, scale))


def _product(size: int, scale: Scale) -> Numbers:
    a, b = (
        jax.random.normal(jax.random.key(i), (size, size)).astype(jnp.bfloat16) for i in range(2)
    )
    product = jax.jit(jnp.matmul)
    taken = seconds(lambda: product(a, b), scale.timed_seconds, scale.repeats)
    return rates(2 * size**3, 0, taken, scale)


def _copy(count: int, scale: Scale) -> Numbers:
    x = jax.random.normal(jax.random.key(0), (count,))
    copy = jax.jit(lambda x: x + 1)
    taken = seconds(lambda: copy(x), scale.timed_seconds, scale.repeats)
    return rates(0, 8 * count, taken, scale)


def rates(flops: float, moved: float, taken: float, scale: Scale, name: str = "time") -> Numbers:
    """Time, achieved rates and their shares of the device's peaks; no share where none is known.

    Args:
        flops: operations that had to be done.
        moved: bytes that had to be moved.
        taken: seconds.
        scale: of the device.
        name: of the time.
    """
    numbers = {name: Number(1e3 * taken, "ms")}
    for rate, amount, unit, per, table in (
        ("rate", flops, "TFLOP/s", 1e12, hardware.PEAK_FLOPS),
        ("bandwidth", moved, "GB/s", 1e9, hardware.PEAK_BANDWIDTH),
    ):
        if amount:
            numbers[rate] = Number(amount / taken / per, unit)
            if peak := hardware.peak_of(scale.device_kind, table):
                numbers[f"{rate} of peak"] = Number(100 * amount / taken / peak, "%")
    return numbers

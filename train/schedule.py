"""Learning-rate schedules over time, in steps or any other unit."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

Number = float | jax.Array | np.number

Shape = Literal["one_minus_sqrt", "linear", "cosine", "constant"]

REMAINING: dict[str, Callable[[jax.Array], jax.Array]] = {
    "one_minus_sqrt": lambda x: 1 - jnp.sqrt(x),
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + jnp.cos(jnp.pi * x)) / 2,
    "constant": jnp.ones_like,
}
"""Share of the peak that remains when a share x of the decay, 0 to 1, is over."""


def warmup_stable_decay(
    peak: float | jax.Array,
    warmup: float,
    total: float,
    decay: float,
    final_fraction: float = 0.0,
    shape: Shape = "one_minus_sqrt",
) -> optax.Schedule:
    """Build the trapezoid: linear rise over `warmup`, then `peak`, then a fall over `decay`.

    `warmup`, `total` and `decay` are in the unit of the schedule's argument: optimizer steps, or
    rows read. With x from 0 to 1 through the decay, `one_minus_sqrt` (Hägele et al. 2024) gives
    peak * (final_fraction + (1 - final_fraction) * (1 - sqrt(x))). `decay=0` holds the peak.

    Raises:
        ValueError: an unknown shape, or warm-up and decay that do not fit `total`.
    """
    if shape not in REMAINING:
        raise ValueError(f"shape is {shape!r}; it must be {' or '.join(REMAINING)}")
    if min(warmup, decay) < 0 or warmup + decay > total:
        raise ValueError(f"warmup {warmup} and decay {decay} do not fit into total {total}")
    return lambda time: trapezoid(time, peak, warmup, total, decay, final_fraction, shape)


def trapezoid(
    time: jax.Array,
    peak: Number,
    warmup: Number,
    total: Number,
    decay: Number,
    final_fraction: float = 0.0,
    shape: Shape = "one_minus_sqrt",
) -> jax.Array:
    """Compute `warmup_stable_decay` at a time; all numbers may be traced, and none is checked."""
    rise = jnp.where(time < warmup, time / _not_0(warmup), 1.0) if _is_wanted(warmup) else 1.0
    if not _is_wanted(decay):
        return jnp.asarray(peak * rise)
    x = jnp.clip((time - (total - decay)) / _not_0(decay), 0.0, 1.0)
    remaining = REMAINING[shape](x)
    if final_fraction:
        remaining = final_fraction + (1 - final_fraction) * remaining
    return peak * rise * remaining


def _is_wanted(duration: Number) -> bool:
    """Whether a duration may be more than 0; a traced one always may."""
    return not isinstance(duration, int | float) or duration > 0


def _not_0(duration: Number) -> Number:
    """A divisor: the duration, or 1 where a traced one is 0."""
    return duration if isinstance(duration, int | float) else jnp.where(duration > 0, duration, 1)

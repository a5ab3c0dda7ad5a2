"""Learning-rate schedules over time, in steps or any other unit."""

from typing import Literal

import jax.numpy as jnp
import optax

Shape = Literal["one_minus_sqrt", "linear", "cosine"]

REMAINING = {
    "one_minus_sqrt": lambda x: 1 - jnp.sqrt(x),
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + jnp.cos(jnp.pi * x)) / 2,
}
"""What is left of the peak when a share x of the fall, 0 to 1, is over."""


def warmup_stable_decay(
    peak: float,
    warmup: float,
    total: float,
    decay: float,
    final_fraction: float = 0.0,
    shape: Shape = "one_minus_sqrt",
) -> optax.Schedule:
    """The trapezoid: linear rise over `warmup`, then `peak`, then a fall over the last `decay`.

    All three are in the unit of the schedule's argument: optimizer steps, or rows read.

    With x from 0 to 1 through the decay, `one_minus_sqrt` (Hägele et al. 2024) gives
    peak * (final_fraction + (1 - final_fraction) * (1 - sqrt(x))). `decay=0` holds the peak.

    Raises:
        ValueError: an unknown shape, or warm-up and decay that do not fit `total`.
    """
    if shape not in REMAINING:
        raise ValueError(f"shape is {shape!r}; it must be {' or '.join(REMAINING)}")
    if min(warmup, decay) < 0 or warmup + decay > total:
        raise ValueError(f"warmup {warmup} and decay {decay} do not fit into total {total}")

    def schedule(step):
        rise = jnp.minimum(step / warmup, 1.0) if warmup else 1.0
        x = jnp.clip((step - (total - decay)) / decay, 0.0, 1.0) if decay else 0.0
        fall = final_fraction + (1 - final_fraction) * REMAINING[shape](x)
        return peak * rise * fall

    return schedule

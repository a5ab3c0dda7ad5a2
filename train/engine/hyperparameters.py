"""The numbers of a run that its compiled step takes as arguments, so that a sweep compiles once.

    step(state, fixed, hyper, batch)    # a function of (config without these numbers) is compiled

Inside it the optimizer is built of traced numbers:

    rate = functools.partial(hyper.rate, shape=config.schedule)
    tx = stable_adamw(rate, b1, b2, eps, hyper.weight_decay, hyper.learning_rate)

What else differs between runs of a sweep lies in the state already: parameters and the key.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp

from ..schedule import REMAINING

Shape = Literal["linear", "cosine", "one_minus_sqrt", "constant"]


class Hyper(NamedTuple):
    """Float32 scalars."""

    learning_rate: jax.Array | float
    """The peak; more than 0."""
    weight_decay: jax.Array | float
    """Share of a weight that a step at the peak takes off it."""
    warmup: jax.Array | float
    """Steps of a linear rise from 0."""
    total: jax.Array | float
    """Steps of the run, at the end of which the schedule is down."""

    def rate(self, step: jax.Array, shape: Shape = "linear") -> jax.Array:
        """The learning rate after `step` updates: a rise from 0, then a fall to 0 at `total`."""
        rise = jnp.where(step < self.warmup, step / jnp.maximum(self.warmup, 1), 1.0)
        x = jnp.clip((step - self.warmup) / jnp.maximum(self.total - self.warmup, 1), 0.0, 1.0)
        fall = 1.0 if shape == "constant" else REMAINING[shape](x)
        return self.learning_rate * rise * fall

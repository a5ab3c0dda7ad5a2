"""What keeps a bad batch, or a bad machine, from ruining a run: updates that are not made.

Decided inside the compiled step, so that the host never waits for it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

WINDOW = 100
"""Updates that the running mean and deviation of the loss look back on, and that come before the
first judgement."""

LEAST_DEVIATION = 0.01
"""Share of the mean loss below which its deviation is not believed: calm is no reason to panic."""


class Guard(NamedTuple):
    """The loss of the updates made, and how many were not made. Scalars on the device."""

    mean: jax.Array
    variance: jax.Array
    made: jax.Array
    """Updates in this stage, int32."""
    skipped: jax.Array
    """Updates that the run has skipped, int32."""
    in_a_row: jax.Array
    """Updates skipped since the last one that was made, int32."""

    @classmethod
    def new(cls) -> "Guard":
        """Nothing seen."""
        # Each an array of its own: a step takes over the memory of all.
        losses = (jnp.zeros([], jnp.float32) for _ in range(2))
        return cls(*losses, *(jnp.zeros([], jnp.int32) for _ in range(3)))

    def restarted(self, when: jax.Array) -> "Guard":
        """Forgets the loss where `when`, because another stage has another one."""
        mean, variance, made = (
            jnp.where(when, jnp.zeros_like(x), x) for x in (self.mean, self.variance, self.made)
        )
        return self._replace(mean=mean, variance=variance, made=made)


def judge(
    guard: Guard, loss: jax.Array, grad_norm: jax.Array, deviations: float
) -> tuple[jax.Array, Guard]:
    """Whether to make an update, and what is remembered of it.

    It is not made if its loss or gradient is not finite, or if the loss lies more than
    `deviations` standard deviations above the running mean; 0 switches the latter off.
    """
    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    if deviations:
        deviation = jnp.maximum(jnp.sqrt(guard.variance), LEAST_DEVIATION * guard.mean)
        spike = loss > guard.mean + deviations * deviation
        good &= ~(spike & (guard.made >= WINDOW))
    share = 1 / jnp.minimum(guard.made + 1, WINDOW)
    mean = guard.mean + share * (loss - guard.mean)
    variance = guard.variance + share * ((loss - guard.mean) * (loss - mean) - guard.variance)
    bad = (~good).astype(jnp.int32)
    return good, Guard(
        jnp.where(good, mean, guard.mean),
        jnp.where(good, variance, guard.variance),
        guard.made + 1 - bad,
        guard.skipped + bad,
        (guard.in_a_row + 1) * bad,
    )

"""Guard that skips steps whose loss or gradient is not finite, or whose loss spikes.

The decision is made inside the compiled step, so the host never waits for it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

WINDOW = 100
"""Number of steps that the running mean and deviation of the loss cover; no spike is detected
before so many steps."""

LEAST_DEVIATION = 0.01
"""Lower bound of the loss's deviation, as a share of its mean; avoids false spikes."""


class Guard(NamedTuple):
    """Loss statistics over accepted steps, and counts of skipped steps; scalars on the device."""

    mean: jax.Array
    """Running mean of the loss, float32."""
    variance: jax.Array
    """Running variance of the loss, float32."""
    made: jax.Array
    """Accepted steps in this stage, int32."""
    skipped: jax.Array
    """Skipped steps in the whole run, int32."""
    in_a_row: jax.Array
    """Consecutive skipped steps since the last accepted one, int32."""

    @classmethod
    def new(cls) -> "Guard":
        """Return the statistics before the first step."""
        # Separate arrays, because a step donates the memory of each.
        losses = (jnp.zeros([], jnp.float32) for _ in range(2))
        return cls(*losses, *(jnp.zeros([], jnp.int32) for _ in range(3)))

    def restarted(self, when: jax.Array) -> "Guard":
        """Reset the statistics of the loss where `when` is true: at the start of a stage."""
        mean, variance, made = (
            jnp.where(when, jnp.zeros_like(x), x) for x in (self.mean, self.variance, self.made)
        )
        return self._replace(mean=mean, variance=variance, made=made)


def judge(
    guard: Guard, loss: jax.Array, grad_norm: jax.Array, deviations: float
) -> tuple[jax.Array, Guard]:
    """Decide whether a step is accepted.

    Args:
        guard: the statistics so far.
        loss: the step's loss, float32 scalar.
        grad_norm: the step's gradient norm, float32 scalar.
        deviations: a loss more than this many standard deviations above the running mean is a
            spike; 0 accepts every finite loss.

    Returns:
        A boolean scalar, false for a step to skip, and the new statistics.
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

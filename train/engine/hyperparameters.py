"""The numbers of a run that its compiled step takes as arguments, so that a sweep compiles once."""

from typing import NamedTuple

import jax
import numpy as np

from ..schedule import Shape, trapezoid

Scalar = jax.Array | np.number


class Hyperparameters(NamedTuple):
    """Scalars, float32 but for `start`. What else differs between runs is in their state."""

    learning_rate: Scalar
    """Peak of the schedule."""
    decay: Scalar
    """Share of a parameter that a step with learning rate 1 would take off it."""
    start: Scalar
    """Step of the run at which the phase begins, int32."""
    warmup: Scalar
    """Steps of the linear rise."""
    total: Scalar
    """Steps of the phase."""

    @classmethod
    def create(
        cls,
        learning_rate: float,
        decay: float,
        start: int = 0,
        warmup: float = 0.0,
        total: float = 0.0,
    ) -> "Hyperparameters":
        """Build the arguments of a compiled step from Python numbers."""
        numbers = (np.float32(x) for x in (warmup, total))
        return cls(np.float32(learning_rate), np.float32(decay), np.int32(start), *numbers)


def relative_decay(weight_decay: float, learning_rate: float) -> float:
    """Weight decay per unit of learning rate, from the share that a step at the peak takes off."""
    return float(np.float32(weight_decay) / np.float32(learning_rate)) if learning_rate else 0.0


def rise_and_fall(hyper: Hyperparameters, step: jax.Array, shape: Shape) -> jax.Array:
    """Learning rate after `step` steps of a phase: a linear rise from 0, then a fall to 0."""
    decay = hyper.total - hyper.warmup
    return trapezoid(step, hyper.learning_rate, hyper.warmup, hyper.total, decay, shape=shape)

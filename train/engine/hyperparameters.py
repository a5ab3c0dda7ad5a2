"""The numbers of a run that its compiled step takes as arguments, so that a sweep compiles once."""

from typing import NamedTuple

import jax
import numpy as np

from ..schedule import Shape, trapezoid

Scalar = jax.Array | np.number

LARGE_DECAY = 1e-3
"""Share of a weight per step from which on its decay is stronger than learning. Published runs have
3e-4 or less."""


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


def decay_warning(weight_decay: float, learning_rate: float) -> str:
    """A line about a weight decay of `stable_adamw` that erases weights; "" for others.

    The decay of PyTorch's AdamW is multiplied by the learning rate, so 0.01 is usual there. Here it
    is a share of each weight.
    """
    share = float(f"{weight_decay:.4g}")  # 0.001 may be a little less in float32
    if share < LARGE_DECAY:
        return ""
    return (
        f"warning: weight decay {share:g} takes {100 * share:.4g}% off every matrix in each step;"
        " stable_adamw does not multiply it by the learning rate. The equivalent of AdamW's"
        f" {share:g} is {weight_decay * learning_rate:.3g}; or pass --optimizer adamw"
    )


def rise_and_fall(hyper: Hyperparameters, step: jax.Array, shape: Shape) -> jax.Array:
    """Learning rate after `step` steps of a phase: a linear rise from 0, then a fall to 0."""
    decay = hyper.total - hyper.warmup
    return trapezoid(step, hyper.learning_rate, hyper.warmup, hyper.total, decay, shape=shape)

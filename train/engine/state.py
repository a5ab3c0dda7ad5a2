"""The state of a training run, which a step reads and replaces and a checkpoint holds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .guard import Guard


class Best(NamedTuple):
    """The model with the best score so far."""

    params: Any
    """Its trained parameters."""
    step: jax.Array
    """Its step, int32 scalar; -1 before the first evaluation."""
    score: jax.Array
    """Its score, float32 scalar; -inf before the first evaluation."""

    @classmethod
    def before(cls, params: Any) -> "Best":
        """Return the best model before the first evaluation: a copy of `params`. Traceable."""
        score = jnp.full([], -jnp.inf, jnp.float32)
        return cls(jax.tree.map(jnp.copy, params), jnp.full([], -1, jnp.int32), score)

    def replaced(self, params: Any, step: int, score: float) -> "Best":
        """Return a new best model with a copy of `params`; shardings stay the same."""
        numbers = np.int32(step), np.float32(score)
        places = self.step.sharding, self.score.sharding
        copied = jax.tree.map(jnp.copy, params)
        return Best(copied, *map(jax.device_put, numbers, places))


class TrainState(NamedTuple):
    """Everything that a step reads and replaces."""

    step: jax.Array
    """Number of steps so far, int32 scalar."""
    params: Any
    """The trained parameters; see `Partition`."""
    opt_state: Any
    """State of the optimizer."""
    key: jax.Array
    """Key data of the run, uint32; a step folds its number into it."""
    guard: Guard
    """Statistics of the loss, and counts of skipped steps."""
    best: Best | None = None
    """The best model so far; None if it is not kept."""

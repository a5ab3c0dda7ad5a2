"""The state of a training run: all that a step reads and replaces, and a checkpoint holds."""

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
    """int32; -1 before the first evaluation."""
    score: jax.Array
    """float32."""

    @classmethod
    def before(cls, params: Any) -> "Best":
        """The best model before the first evaluation: a copy of the initial one. Traceable."""
        score = jnp.full([], -jnp.inf, jnp.float32)
        return cls(jax.tree.map(jnp.copy, params), jnp.full([], -1, jnp.int32), score)

    def replaced(self, params: Any, step: int, score: float) -> "Best":
        """A new best model, copied; its scalars stay on the devices of the old ones."""
        numbers = np.int32(step), np.float32(score)
        places = self.step.sharding, self.score.sharding
        copied = jax.tree.map(jnp.copy, params)
        return Best(copied, *map(jax.device_put, numbers, places))


class TrainState(NamedTuple):
    """All that a step reads and replaces."""

    step: jax.Array
    """Steps made so far, int32."""
    params: Any
    """The trained parameters; see `Partition`."""
    opt_state: Any
    key: jax.Array
    """Key data (uint32), from which the randomness of a step follows by `fold_in` of its number."""
    guard: Guard
    """Statistics of the loss, and the steps that were skipped."""
    best: Best | None = None
    """None where the best model is not kept."""

"""One training step as a pure function, for every objective.

What differs between the runs of a sweep (learning rate, weight decay, number of steps, seed) is an
argument, not a constant, so that all of them share one program.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.sharding import tree_shardings

from ..optimizer import matrices, stable_adamw
from .config import EngineConfig
from .gradients import gradients
from .guard import Guard, judge
from .hyperparameters import Hyperparameters
from .objective import Objective, Schedule, packing_counts
from .partition import Partition
from .state import Best, TrainState

_ADAPTERS = 2**32 - 2
"""Folded into the key for new adapters; no step has this number."""

Metrics = dict[str, jax.Array]
"""Scalars of one step, by their names in `metrics.jsonl`."""

TrainStep = jax.stages.Wrapped
"""The jitted step: from state, fixed parameters, hyperparameters and batch to state and metrics."""


@dataclasses.dataclass(frozen=True)
class Learner:
    """An objective, what is trained of its model, and how: all that a step is compiled from."""

    objective: Objective
    config: EngineConfig
    """Optimizer, clipping, guard and rates by layer; learning rates are not read."""
    schedule: Schedule
    partition: Partition = dataclasses.field(default_factory=Partition)

    def optimizer(self, rate: Any, decay: Any) -> optax.GradientTransformation:
        """Build the optimizer for a learning rate and a decay per unit of it."""
        c = self.config
        if c.optimizer == "adamw":
            tx = optax.chain(
                optax.scale_by_adam(c.b1, c.b2, c.eps),
                _decayed(decay),
                optax.stateless(lambda updates, _: jax.tree.map(lambda u: -rate * u, updates)),
            )
        else:
            tx = stable_adamw(lambda _: rate, c.b1, c.b2, c.eps, decay, 1.0)
        return self.partition.layerwise(tx, c.layer_decay)

    def initial(self, params: Any, seed: Any) -> tuple[TrainState, Any]:
        """Make the state before the first step, and the parameters that stay as they are.

        Traceable. `params` are the whole model's; None draws them.
        """
        key = jax.random.key(seed)
        if params is None:
            params = self.objective.init(key)
        trained, fixed = self.partition.split(params, jax.random.fold_in(key, _ADAPTERS))
        state = TrainState(
            jnp.zeros([], jnp.int32),
            trained,
            self.optimizer(0.0, 0.0).init(trained),
            jax.random.key_data(key),
            Guard.new(),
            Best.before(trained) if self.config.keep_best else None,
        )
        return state, fixed

    def shapes(self, mesh: Mesh) -> tuple[TrainState, Any]:
        """Shape, dtype and sharding of everything that `initial` makes."""
        shapes = jax.eval_shape(lambda: self.initial(None, 0))
        if mesh.empty:
            return shapes
        return jax.tree.map(
            lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
            shapes,
            tree_shardings(shapes, mesh),
        )

    def train_step(self, state: TrainState) -> TrainStep:
        """Jit the step. It takes over the memory of `state`, and leaves every array in its place.

        Args:
            state: a state, or its shapes, with shardings.
        """
        out = None
        if not (mesh := jax.sharding.get_mesh()).empty:
            out = (jax.tree.map(lambda x: x.sharding, state), NamedSharding(mesh, P()))
        return jax.jit(self.step, donate_argnums=0, out_shardings=out)

    def step(
        self, state: TrainState, fixed: Any, hyper: Hyperparameters, batch: Any
    ) -> tuple[TrainState, Metrics]:
        """Make one step. Traceable."""
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        join = self.partition.joiner(fixed, jax.random.split(key)[1])
        microbatches = self.objective.microbatches(batch, key)
        sums, grads = gradients(self.objective, join, state.params, microbatches)
        count = jnp.maximum(sums.count, jnp.finfo(jnp.float32).tiny)
        mean, grads = sums.loss / count, jax.tree.map(lambda g: g / count, grads)
        norm = optax.tree.norm(grads)
        if self.config.clip_norm:
            scale = jnp.minimum(1.0, self.config.clip_norm / (norm + 1e-6))  # as PyTorch
            grads = jax.tree.map(lambda g: g * scale, grads)
        guard = state.guard.restarted(state.step == hyper.start)
        good, guard = judge(guard, mean, norm, self.config.spike_deviations)
        rate = self.schedule(hyper, state.step - hyper.start)
        tx = self.optimizer(rate, hyper.decay)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: jnp.where(good, u, 0), updates)
        # The rate follows the step, so that a skipped step leaves no trace in the optimizer.
        opt_state = jax.tree.map(lambda a, b: jnp.where(good, a, b), opt_state, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        metrics = {
            "loss": mean,
            **{name: total / count for name, total in sums.metrics.items()},
            "learning_rate": rate,
            "grad_norm": norm,
            "update_norm": optax.tree.norm(updates),
            "param_norm": optax.tree.norm(params),
            "skipped_updates": guard.skipped,
            "skipped_in_a_row": guard.in_a_row,
            "count": sums.count,
            "microbatches": microbatches.number,
            **packing_counts(batch),
        }
        new = TrainState(state.step + 1, params, opt_state, state.key, guard, state.best)
        return new, metrics


def _decayed(decay: Any) -> optax.GradientTransformation:
    """Add a share of every matrix to its update."""

    def update(updates, params):
        return jax.tree.map(
            lambda u, p, is_matrix: u + decay * p if is_matrix else u,
            updates,
            params,
            matrices(params),
        )

    return optax.stateless(update)

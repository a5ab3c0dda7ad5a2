"""One update, and what the model says of a batch, as pure functions that are compiled once.

What differs between the runs of a sweep (learning rate, weight decay, number of updates, seed) is
an argument, not a constant: all of them share one program.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.heads import Classifier, document_pooling, pool
from modernbert_jax.packing import Rows
from modernbert_jax.sharding import constrain, tree_shardings

from ..engine.guard import Guard, judge
from ..engine.hyperparameters import Hyper
from ..engine.partition import Partition
from ..optimizer import matrices, stable_adamw
from .batches import Batch
from .config import FinetuneConfig
from .objectives import Objective, Sums
from .start import in_training

_ADAPTERS = 2**32 - 2
"""Folded into the key for new adapters; no update is numbered so."""

_APART = 2**16
"""Between the dropout ids of the first tokens of two documents."""


class Best(NamedTuple):
    """The model with the best score so far."""

    params: Any
    """What is trained of it; {} where it is not kept."""
    step: jax.Array
    """int32; -1 before the first evaluation."""
    score: jax.Array
    """float32"""


class State(NamedTuple):
    """Everything that a step reads and replaces."""

    step: jax.Array
    """Updates made so far, int32."""
    params: Any
    """What is trained; see `Partition`."""
    opt_state: Any
    key: jax.Array
    """Key data (uint32) from which dropout is derived by `fold_in` of the step."""
    guard: Guard
    best: Best


class StepMetrics(NamedTuple):
    """Scalars of one update."""

    loss: jax.Array
    learning_rate: jax.Array
    grad_norm: jax.Array
    """Before it is clipped."""
    update_norm: jax.Array
    skipped_updates: jax.Array
    skipped_in_a_row: jax.Array
    count: jax.Array
    """What the loss is a mean over: examples, labelled tokens, windows; or their weights."""
    microbatches: jax.Array


TrainStep = Callable[[State, Any, Hyper, Batch], tuple[State, StepMetrics]]
ForwardStep = Callable[[Any, Any, Batch], tuple[jax.Array, Sums]]


@dataclasses.dataclass(frozen=True)
class Learner:
    """A model, what is trained of it and what for: all that a step is compiled from."""

    config: FinetuneConfig
    model: ModernBertConfig
    outputs: int
    objective: Objective
    documents: int
    """In a row at most."""
    partition: Partition

    def optimizer(self, rate: Any, hyper: Hyper | None) -> optax.GradientTransformation:
        """At a learning rate; without `hyper` good for making a state."""
        c = self.config
        decay, peak = (hyper.weight_decay, hyper.learning_rate) if hyper else (0.0, 1.0)
        if c.optimizer == "adamw":
            tx = optax.chain(
                optax.scale_by_adam(c.b1, c.b2, c.eps),
                _decayed(decay),
                optax.stateless(lambda updates, _: jax.tree.map(lambda u: -rate * u, updates)),
            )
        else:
            # Decay per update is weight_decay * rate / peak.
            tx = stable_adamw(lambda _: rate, c.b1, c.b2, c.eps, decay / peak, 1.0)
        return self.partition.layerwise(tx, c.layer_decay)

    def initial(self, params: Any, seed: Any) -> tuple[State, Any]:
        """The state before the first update, and the parameters that stay as they are. Traceable.

        `params` are the whole model's.
        """
        key = jax.random.key(seed)
        trained, fixed = self.partition.split(params, jax.random.fold_in(key, _ADAPTERS))
        kept = jax.tree.map(jnp.copy, trained) if self.config.keep_best else {}
        state = State(
            jnp.zeros([], jnp.int32),
            trained,
            self.optimizer(0.0, None).init(trained),
            jax.random.key_data(key),
            Guard.new(),
            Best(kept, jnp.full([], -1, jnp.int32), jnp.full([], -jnp.inf, jnp.float32)),
        )
        return state, fixed

    def shapes(self, params: Any, mesh: Mesh) -> tuple[State, Any]:
        """Shape, dtype and place of everything that `initial` makes of such parameters."""
        shapes = jax.eval_shape(lambda p: self.initial(p, 0), params)
        if mesh.empty:
            return shapes
        return jax.tree.map(
            lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
            shapes,
            tree_shardings(shapes, mesh),
        )

    def sums(self, params: Any, batch: Batch, number: Any, key=None) -> tuple[jax.Array, Sums]:
        """Logits [B, S, K] or [B, T, K] of a microbatch, and its loss; drops out if given a key.

        What is dropped of a document follows from its number in the batch, wherever it is packed.
        """
        rows, targets, weights, documents = jax.tree.map(lambda x: x[number], batch[:4])
        model = self.model if key is None else in_training(self.config, self.model)
        bound = Classifier(model, self.config.runtime, self.outputs).bind(
            {"params": params}, rngs=None if key is None else {"dropout": key}
        )
        dropout = {"deterministic": key is None, "dropout_ids": _of_tokens(documents, rows)}
        x = bound.hidden(*rows, **dropout)
        if self.objective.level == "document":
            x = pool(x, rows.segment_ids, self.documents, document_pooling(self.model))
            x = constrain(x, "rows", None, None)
            dropout["dropout_ids"] = documents
        logits = bound.logits(x, **dropout)
        return logits, self.objective.sums(logits, targets, weights, rows.segment_ids)

    def train_step(self, state: State) -> TrainStep:
        """The compiled update. It takes over the memory of `state`, and leaves all where it was."""
        out = None
        if not (mesh := jax.sharding.get_mesh()).empty:
            out = (jax.tree.map(lambda x: x.sharding, state), NamedSharding(mesh, P()))
        return jax.jit(self._update, donate_argnums=0, out_shardings=out)

    def forward_step(self) -> ForwardStep:
        """The compiled forward pass of the first microbatch, results whole on every device."""

        def forward(trained: Any, fixed: Any, batch: Batch) -> tuple[jax.Array, Sums]:
            return self.sums(self.partition.join(trained, fixed), batch, 0)

        mesh = jax.sharding.get_mesh()
        return jax.jit(forward, out_shardings=None if mesh.empty else NamedSharding(mesh, P()))

    def _update(
        self, state: State, fixed: Any, hyper: Hyper, batch: Batch
    ) -> tuple[State, StepMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        sums, grads = self._summed(state.params, fixed, batch, key)
        count = jnp.maximum(sums.count, jnp.finfo(jnp.float32).tiny)
        mean = sums.loss / count
        norm = optax.tree.norm(grads) / count
        scale = 1 / count
        if self.config.clip_norm:
            scale *= jnp.minimum(1.0, self.config.clip_norm / (norm + 1e-6))  # as PyTorch
        grads = jax.tree.map(lambda g: g * scale, grads)
        made, guard = judge(state.guard, mean, norm, self.config.spike_deviations)
        rate = hyper.rate(state.step, self.config.schedule)
        tx = self.optimizer(rate, hyper)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: jnp.where(made, u, 0), updates)
        # The rate follows the step, so that a skipped update leaves no trace in the optimizer.
        opt_state = jax.tree.map(lambda a, b: jnp.where(made, a, b), opt_state, state.opt_state)
        metrics = StepMetrics(
            mean,
            rate,
            norm,
            optax.tree.norm(updates),
            guard.skipped,
            guard.in_a_row,
            sums.count,
            batch.used,
        )
        params = optax.apply_updates(state.params, updates)
        new = State(state.step + 1, params, opt_state, state.key, guard, state.best)
        return new, metrics

    def _summed(self, trained: Any, fixed: Any, batch: Batch, key: jax.Array) -> tuple[Sums, Any]:
        """Sums and gradients over the microbatches that are in use."""

        dropout, adapters = jax.random.split(key)

        def loss(trained, number):
            params = self.partition.join(trained, fixed, adapters)
            _, sums = self.sums(params, batch, number, dropout)
            return sums.loss, sums

        def add(number, total):
            grads, sums = jax.grad(loss, has_aux=True)(trained, number)
            return jax.tree.map(jnp.add, total, (sums, grads))

        zero = Sums(jnp.zeros([], jnp.float32), jnp.zeros([], jnp.float32))
        return jax.lax.fori_loop(0, batch.used, add, (zero, optax.tree.zeros_like(trained)))


def _of_tokens(documents: jax.Array, rows: Rows) -> jax.Array:
    """Dropout ids of tokens [B, T] from the numbers of their documents [B, S]."""
    numbers = jnp.take_along_axis(documents, jnp.maximum(rows.segment_ids - 1, 0), axis=1)
    return _APART * numbers + rows.positions


def _decayed(decay: Any) -> optax.GradientTransformation:
    """Adds a share of every matrix to its update."""

    def update(updates, params):
        return jax.tree.map(
            lambda u, p, is_matrix: u + decay * p if is_matrix else u,
            updates,
            params,
            matrices(params),
        )

    return optax.stateless(update)

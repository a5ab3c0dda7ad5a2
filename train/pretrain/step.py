"""One step of training, and one of evaluation, as pure functions to be compiled."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from modernbert_jax.heads import MaskedLM
from modernbert_jax.masking import mask_tokens
from modernbert_jax.packing import Rows
from modernbert_jax.sharding import constrain, tree_shardings
from modernbert_jax.tokenizer import Tokenizer

from ..engine.guard import Guard, judge
from ..loss import Sums, masked_lm_sums
from ..optimizer import stable_adamw
from .config import PretrainConfig, Stage

_INIT = 2**32 - 1
"""Folded into the key for initial values; no step is numbered so."""


class TrainState(NamedTuple):
    """Everything that a step reads and replaces."""

    step: jax.Array
    """Updates made so far, int32."""
    params: Any
    opt_state: Any
    key: jax.Array
    """Key data (uint32) from which every mask and dropout is derived by `fold_in` of the step."""
    guard: Guard
    """Of the loss so far, and the updates that were skipped."""


class StepMetrics(NamedTuple):
    """Float32 scalars of one step."""

    loss: jax.Array
    masked_accuracy: jax.Array
    learning_rate: jax.Array
    grad_norm: jax.Array
    update_norm: jax.Array
    param_norm: jax.Array
    """Behind the update."""
    skipped_updates: jax.Array
    """In the run so far, by the guard."""
    skipped_in_a_row: jax.Array
    tokens: jax.Array
    """In the batch, int32."""
    pairs: jax.Array
    """Of a token and another of its document, in the batch."""


TrainStep = Callable[[TrainState, Rows], tuple[TrainState, StepMetrics]]
EvalStep = Callable[[Any, Rows, int], Sums]


@dataclasses.dataclass(frozen=True)
class MaskRule:
    """How tokens are hidden, but for the rate and the key."""

    mask_id: int
    vocab_size: int
    special_ids: tuple[int, ...]
    unused_ids: tuple[int, ...] = ()
    legacy: bool = False

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> "MaskRule":
        """The rule for a tokenizer's ids."""
        return cls(
            tokenizer.mask_id, tokenizer.vocab_size, tokenizer.special_ids, tokenizer.unused_ids
        )

    def __call__(self, key: jax.Array, rows: Rows, rate: float) -> tuple[jax.Array, jax.Array]:
        """Inputs and labels."""
        return mask_tokens(
            key, rows.token_ids, rows.segment_ids, rate=rate, **dataclasses.asdict(self)
        )


def optimizer(config: PretrainConfig, stage: Stage, start: int) -> optax.GradientTransformation:
    """The stage's optimizer, counting on from the run's steps; moments carry over from before."""
    schedule = stage.learning_rate()
    return stable_adamw(
        lambda count: schedule(count - start),
        config.b1,
        config.b2,
        config.eps,
        stage.weight_decay,
        stage.peak_learning_rate,
    )


def initial_state(config: PretrainConfig, params: Any | None = None) -> TrainState:
    """The state before the first step; random parameters unless some are given. Traceable."""
    key = jax.random.key(config.seed)
    if params is None:
        module = MaskedLM(config.model, config.runtime)
        # As many rows and tokens as any mesh could want; nothing is computed with them.
        mesh = jax.sharding.get_abstract_mesh()
        ids = jnp.zeros((mesh.size, 8 * mesh.size) if mesh.shape else (1, 8), jnp.int32)
        params = module.init(jax.random.fold_in(key, _INIT), ids, ids, ids)["params"]
    tx = optimizer(config, config.stages[0], 0)
    return TrainState(
        jnp.zeros([], jnp.int32), params, tx.init(params), jax.random.key_data(key), Guard.new()
    )


def init_state(config: PretrainConfig, params: Any | None = None) -> TrainState:
    """`initial_state`, under a mesh with every array made in the place where it will lie."""
    shardings = None
    if not (mesh := jax.sharding.get_mesh()).empty:
        shardings = jax.tree.map(lambda x: x.sharding, state_shapes(config, mesh))
        params = params and jax.device_put(params, shardings.params)
    return jax.jit(functools.partial(initial_state, config), out_shardings=shardings)(params)


def state_shapes(config: PretrainConfig, mesh: Mesh) -> TrainState:
    """Shape, dtype and place of each array of the training state."""
    shapes = jax.eval_shape(lambda: initial_state(config))
    return jax.tree.map(
        lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
        shapes,
        tree_shardings(shapes, mesh),
    )


def train_step(
    config: PretrainConfig, stage: Stage, start: int, mask: MaskRule, microbatches: int = 1
) -> TrainStep:
    """The compiled step of a stage that starts at step `start`. It takes over the state's memory.

    A batch [B, T] is computed in microbatches. Their losses, predicted tokens and gradients are
    summed and divided once, so that the loss is the mean over all predicted tokens of the batch.
    Masks depend on the seed and the step alone, dropout also on the microbatch.
    """
    model = dataclasses.replace(
        config.stage_model(stage), attention_dropout=config.attention_dropout
    )
    module = MaskedLM(model, config.runtime)
    mask = dataclasses.replace(mask, legacy=stage.legacy_masking)
    tx, schedule = optimizer(config, stage, start), stage.learning_rate()

    def loss(params, key, inputs, rows, labels):
        sums = masked_lm_sums(module, params, inputs, rows.segment_ids, rows.positions, labels, key)
        return sums.loss, sums

    def step(state: TrainState, rows: Rows) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        mask_key, dropout_key = jax.random.split(key)
        inputs, labels = mask(mask_key, rows, stage.mask_rate)
        keys = jax.random.split(dropout_key, microbatches)
        pieces = jax.tree.map(lambda x: _divided(x, microbatches), (inputs, rows, labels))
        sums, grads = _summed(loss, state.params, (keys, *pieces))
        count = jnp.maximum(sums.count, 1)
        mean, grads = sums.loss / count, jax.tree.map(lambda g: g / count, grads)
        grad_norm = optax.tree.norm(grads)
        made, guard = judge(
            state.guard.restarted(state.step == start), mean, grad_norm, config.spike_deviations
        )
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        updates = jax.tree.map(lambda u: jnp.where(made, u, 0), updates)
        params = optax.apply_updates(state.params, updates)
        # Of a skipped update the optimizer keeps only that time went on.
        kept = jax.tree.map(functools.partial(jnp.where, made), opt_state, state.opt_state)
        opt_state = kept._replace(count=opt_state.count)
        metrics = StepMetrics(
            mean,
            sums.correct / count,
            schedule(state.step - start),
            grad_norm,
            optax.tree.norm(updates),
            optax.tree.norm(params),
            guard.skipped,
            guard.in_a_row,
            (rows.segment_ids > 0).sum(dtype=jnp.int32),
            # A document of n tokens has n^2 pairs, the sum of its first n odd numbers.
            jnp.where(rows.segment_ids > 0, 2.0 * rows.positions + 1, 0.0).sum(),
        )
        return TrainState(state.step + 1, params, opt_state, state.key, guard), metrics

    out = None
    if not (mesh := jax.sharding.get_mesh()).empty:
        state = jax.tree.map(lambda x: x.sharding, state_shapes(config, mesh))
        out = (state, NamedSharding(mesh, P()))
    return jax.jit(step, donate_argnums=0, out_shardings=out)


def _divided(x: jax.Array, microbatches: int) -> jax.Array:
    """A batch [B, T] as microbatches on end, [A, B / A, T], each over all devices.

    A microbatch takes every A-th row, and so of every device the same number: none moves.
    """
    x = constrain(x.reshape(-1, microbatches, x.shape[-1]), "rows", None, "tokens")
    return constrain(x.swapaxes(0, 1), None, "rows", "tokens")


def _summed(loss: Callable, params: Any, microbatches: tuple) -> tuple[Sums, Any]:
    """Sums and gradients over microbatches, which are stacked along the first axis of each leaf."""
    gradient = jax.grad(loss, has_aux=True)

    def add(total, microbatch):
        grads, sums = gradient(params, *microbatch)
        return jax.tree.map(jnp.add, total, (sums, grads)), None

    if len(microbatches[0]) == 1:  # no second copy of the gradients
        grads, sums = gradient(params, *jax.tree.map(lambda x: x[0], microbatches))
        return sums, grads
    zero = Sums(*(jnp.zeros([], jnp.float32) for _ in Sums._fields))
    return jax.lax.scan(add, (zero, optax.tree.zeros_like(params)), microbatches)[0]


def eval_step(config: PretrainConfig, stage: Stage, mask: MaskRule) -> EvalStep:
    """The compiled evaluation of a batch: sums over its predicted tokens.

    Its masks depend on the seed and on the batch's number, the last argument.
    """
    module = MaskedLM(config.stage_model(stage), config.runtime)

    def step(params: Any, rows: Rows, number: int) -> Sums:
        key = jax.random.fold_in(jax.random.key(config.seed), number)
        inputs, labels = mask(key, rows, config.eval_mask_rate)
        return masked_lm_sums(module, params, inputs, rows.segment_ids, rows.positions, labels)

    mesh = jax.sharding.get_mesh()
    return jax.jit(step, out_shardings=None if mesh.empty else NamedSharding(mesh, P()))

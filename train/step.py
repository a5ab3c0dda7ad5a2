"""One step of training, and one of evaluation, as pure functions to be compiled."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from modernbert_jax.heads import MaskedLM
from modernbert_jax.masking import mask_tokens
from modernbert_jax.packing import Rows
from modernbert_jax.tokenizer import Tokenizer

from .config import PretrainConfig, Stage
from .loss import Sums, masked_lm_sums
from .optimizer import stable_adamw

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


class StepMetrics(NamedTuple):
    """Float32 scalars of one step."""

    loss: jax.Array
    masked_accuracy: jax.Array
    learning_rate: jax.Array
    grad_norm: jax.Array


TrainStep = Callable[[TrainState, Rows], tuple[TrainState, StepMetrics]]
EvalStep = Callable[[Any, Rows, jax.Array], Sums]


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


def init_state(config: PretrainConfig, params: Any | None = None) -> TrainState:
    """The state before the first step; random parameters unless some are given."""
    key = jax.random.key(config.seed)
    if params is None:
        module = MaskedLM(config.model, config.runtime)
        ids = jnp.zeros((1, 8), jnp.int32)
        params = jax.jit(module.init)(jax.random.fold_in(key, _INIT), ids, ids, ids)["params"]
    tx = optimizer(config, config.stages[0], 0)
    return TrainState(jnp.zeros([], jnp.int32), params, tx.init(params), jax.random.key_data(key))


def train_step(config: PretrainConfig, stage: Stage, start: int, mask: MaskRule) -> TrainStep:
    """The compiled step of a stage that starts at step `start`. It takes over the state's memory.

    The loss is the mean over all predicted tokens of the batch. Masks and dropout depend on the
    seed and the step alone.
    """
    model = dataclasses.replace(
        config.stage_model(stage), attention_dropout=config.attention_dropout
    )
    module = MaskedLM(model, config.runtime)
    mask = dataclasses.replace(mask, legacy=stage.legacy_masking)
    tx, schedule = optimizer(config, stage, start), stage.learning_rate()

    def step(state: TrainState, rows: Rows) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        mask_key, dropout_key = jax.random.split(key)
        inputs, labels = mask(mask_key, rows, stage.mask_rate)
        count = jnp.maximum((labels >= 0).sum(), 1)

        def loss(params):
            sums = masked_lm_sums(
                module, params, inputs, rows.segment_ids, rows.positions, labels, dropout_key
            )
            return sums.loss / count, sums

        (mean, sums), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        metrics = StepMetrics(
            mean, sums.correct / count, schedule(state.step - start), optax.tree.norm(grads)
        )
        params = optax.apply_updates(state.params, updates)
        return TrainState(state.step + 1, params, opt_state, state.key), metrics

    return jax.jit(step, donate_argnums=0)


def eval_step(config: PretrainConfig, stage: Stage, mask: MaskRule) -> EvalStep:
    """The compiled evaluation of a batch: sums over its predicted tokens."""
    module = MaskedLM(config.stage_model(stage), config.runtime)

    def step(params: Any, rows: Rows, key: jax.Array) -> Sums:
        inputs, labels = mask(key, rows, config.eval_mask_rate)
        return masked_lm_sums(module, params, inputs, rows.segment_ids, rows.positions, labels)

    return jax.jit(step)

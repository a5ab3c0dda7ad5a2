"""The masked-LM loss: exact, and computed at predicted positions only."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.heads import MaskedLM
from modernbert_jax.masking import IGNORE
from modernbert_jax.sharding import over_rows

from .engine.objective import Sums

CHUNKS = 8
"""Pieces into which the positions of a row are cut; a piece with nothing to predict is skipped."""


def masked_lm_loss(
    module: MaskedLM,
    params: Any,
    token_ids: jax.Array,
    segment_ids: jax.Array,
    positions: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Sum the cross-entropies over positions whose label is not -100, and count these positions.

    All arrays are int32 [B, T]; the results are float32 scalars. Differentiable in `params`.
    """
    sums = masked_lm_sums(module, params, token_ids, segment_ids, positions, labels)
    return sums.loss, sums.count


def masked_lm_sums(
    module: MaskedLM,
    params: Any,
    token_ids: jax.Array,
    segment_ids: jax.Array,
    positions: jax.Array,
    labels: jax.Array,
    dropout_key: jax.Array | None = None,
) -> Sums:
    """Compute `masked_lm_loss` with the number of correct predictions; drop out with a key."""
    hidden = hidden_states(module, params, token_ids, segment_ids, positions, dropout_key)
    return hidden_sums(module, params, hidden, labels)


def hidden_states(
    module: MaskedLM,
    params: Any,
    token_ids: jax.Array,
    segment_ids: jax.Array,
    positions: jax.Array,
    dropout_key: jax.Array | None = None,
) -> jax.Array:
    """Compute the encoder's hidden states, float32 [B, T, D]; drop out with a key."""
    dropout = None if dropout_key is None else {"dropout": dropout_key}
    model = module.bind({"params": params}, rngs=dropout)
    return model.hidden(token_ids, segment_ids, positions, deterministic=dropout is None)


def hidden_sums(module: MaskedLM, params: Any, hidden: jax.Array, labels: jax.Array) -> Sums:
    """Compute the loss of hidden states [B, T, D] at the predicted positions alone."""
    return over_rows(functools.partial(_sums, module))(_of_the_head(params), hidden, labels)


def _of_the_head(params: Any) -> Any:
    """The parameters that logits need of hidden states."""
    return {**params, "encoder": {"embeddings": params["encoder"]["embeddings"]}}


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _sums(module: MaskedLM, params: Any, hidden: jax.Array, labels: jax.Array) -> Sums:
    """Sum the losses of the predicted positions of some rows, piece by piece.

    When differentiated, the gradient of a piece is computed together with its logits, as in Liger
    Kernel (Hsu et al. 2024): logits are computed once, and the backward pass only scales.
    First-order reverse differentiation only.
    """
    order = _predicted_first(labels)
    pieces = _cut(hidden, order, 0), _cut(labels, order, IGNORE)

    def add(i, total):
        return _added(total, _piece(module, params, *_at(pieces, i)))

    return lax.fori_loop(0, _used(pieces[1]), add, _zero())


def _sums_forward(module: MaskedLM, params: Any, hidden: jax.Array, labels: jax.Array):
    order = _predicted_first(labels)
    hidden, put_back = jax.vjp(lambda x: _cut(x, order, 0), hidden)
    pieces = hidden, _cut(labels, order, IGNORE)

    def add(i, carry):
        total, of_params, of_hidden = carry
        chosen, expected = _at(pieces, i)

        def loss(params, chosen):
            sums = _piece(module, params, chosen, expected)
            return sums.loss, sums

        grads, part = jax.grad(loss, argnums=(0, 1), has_aux=True)(params, chosen)
        of_hidden = lax.dynamic_update_index_in_dim(of_hidden, grads[1], i, 0)
        return _added(total, part), _added(of_params, grads[0]), of_hidden

    nothing = jax.tree.map(jnp.zeros_like, (params, hidden))
    total, of_params, of_hidden = lax.fori_loop(0, _used(pieces[1]), add, (_zero(), *nothing))
    return total, (of_params, *put_back(of_hidden))


def _sums_backward(_: MaskedLM, grads: Any, d_sums: Sums):
    return *jax.tree.map(lambda g: g * d_sums.loss, grads), None


_sums.defvjp(_sums_forward, _sums_backward)


def _piece(module: MaskedLM, params: Any, hidden: jax.Array, labels: jax.Array) -> Sums:
    logits = module.bind({"params": params}).logits(hidden)
    predicted = labels != IGNORE
    # Not a gather: a vocabulary that is divided among devices stays divided.
    is_target = jnp.arange(logits.shape[-1]) == labels[..., None]
    losses = jax.nn.logsumexp(logits, axis=-1) - jnp.where(is_target, logits, 0.0).sum(-1)
    correct = (predicted & (logits.argmax(-1) == labels)).sum(dtype=jnp.float32)
    return Sums(
        jnp.where(predicted, losses, 0.0).sum(),
        predicted.sum(dtype=jnp.float32),
        {"masked_accuracy": correct},
    )


def _predicted_first(labels: jax.Array) -> jax.Array:
    """An order [B, T] of each row's positions in which those to predict come first.

    Rows keep to themselves, so that a batch split over devices stays split.
    """
    return jnp.argsort(labels == IGNORE, axis=1, stable=True)


def _cut(x: jax.Array, order: jax.Array, fill: int) -> jax.Array:
    """x [B, T, ...] in an order, cut into pieces [CHUNKS, B, T / CHUNKS, ...]."""
    rows, length = order.shape
    size = -(-length // CHUNKS)
    x = jnp.take_along_axis(x, jnp.expand_dims(order, (*range(2, x.ndim),)), axis=1)
    padding = ((0, 0), (0, size * CHUNKS - length), *((0, 0),) * (x.ndim - 2))
    x = jnp.pad(x, padding, constant_values=fill)
    return x.reshape(rows, CHUNKS, size, *x.shape[2:]).swapaxes(0, 1)


def _used(pieces: jax.Array) -> jax.Array:
    """Number of pieces with labels to predict; these are the first ones."""
    return (pieces != IGNORE).any((1, 2)).sum(dtype=jnp.int32)


def _at(pieces: Any, i: jax.Array) -> Any:
    return jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, i, keepdims=False), pieces)


def _added(a: Any, b: Any) -> Any:
    return jax.tree.map(jnp.add, a, b)


def _zero() -> Sums:
    loss, count, correct = (jnp.zeros([], jnp.float32) for _ in range(3))
    return Sums(loss, count, {"masked_accuracy": correct})

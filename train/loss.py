"""The masked-LM loss: exact, and paid for at predicted positions only."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from modernbert_jax.heads import MaskedLM
from modernbert_jax.masking import IGNORE
from modernbert_jax.sharding import over_rows

CHUNKS = 8
"""Pieces into which the positions of a row are cut; a piece with nothing to predict is skipped."""


class Sums(NamedTuple):
    """Over all predicted positions: divide by `count` once, after adding up whatever is added."""

    loss: jax.Array
    count: jax.Array
    correct: jax.Array


def masked_lm_loss(
    module: MaskedLM,
    params: Any,
    token_ids: jax.Array,
    segment_ids: jax.Array,
    positions: jax.Array,
    labels: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Sum of cross-entropies over positions whose label is not -100, and how many there are.

    All arrays are int32 [B, T]; float32 scalars come back. Differentiable in `params`.
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
    """As `masked_lm_loss`, with the number of correct predictions; drops out if given a key."""
    hidden = module.apply(
        {"params": params},
        token_ids,
        segment_ids,
        positions,
        deterministic=dropout_key is None,
        rngs=None if dropout_key is None else {"dropout": dropout_key},
        method="hidden",
    )
    return over_rows(functools.partial(_sums, module))(_of_the_head(params), hidden, labels)


def _of_the_head(params: Any) -> Any:
    """The parameters that logits need of hidden states."""
    return {**params, "encoder": {"embeddings": params["encoder"]["embeddings"]}}


def _sums(module: MaskedLM, params: Any, hidden: jax.Array, labels: jax.Array) -> Sums:
    """Sums over the predicted positions of some rows, in pieces."""
    hidden, labels = _predicted_first(hidden, labels)

    @jax.checkpoint
    def piece(hidden, labels):
        logits = module.apply({"params": params}, hidden, method="logits")
        predicted = labels != IGNORE
        # Not a gather: a vocabulary that is divided among devices stays divided.
        is_target = jnp.arange(logits.shape[-1]) == labels[..., None]
        losses = jax.nn.logsumexp(logits, axis=-1) - jnp.where(is_target, logits, 0.0).sum(-1)
        return Sums(
            jnp.where(predicted, losses, 0.0).sum(),
            predicted.sum(dtype=jnp.float32),
            (predicted & (logits.argmax(-1) == labels)).sum(dtype=jnp.float32),
        )

    zero = Sums(*(jnp.zeros([], jnp.float32) for _ in Sums._fields))

    def add(total, chunk):
        found = lax.cond((chunk[1] != IGNORE).any(), piece, lambda *_: zero, *chunk)
        return jax.tree.map(jnp.add, total, found), None

    return lax.scan(add, zero, (hidden, labels))[0]


def _predicted_first(hidden: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sorts each row's predicted positions to its front and cuts it: [chunks, B, T/chunks, ...].

    Rows keep to themselves, so that a batch split over devices stays split.
    """
    rows, length = labels.shape
    order = jnp.argsort(labels == IGNORE, axis=1, stable=True)
    size = -(-length // CHUNKS)
    pad = size * CHUNKS - length

    def cut(x, fill):
        padding = ((0, 0), (0, pad), *((0, 0),) * (x.ndim - 2))
        x = jnp.pad(x, padding, constant_values=fill)
        return x.reshape(rows, CHUNKS, size, *x.shape[2:]).swapaxes(0, 1)

    hidden = jnp.take_along_axis(hidden, order[..., None], axis=1)
    return cut(hidden, 0), cut(jnp.take_along_axis(labels, order, axis=1), IGNORE)

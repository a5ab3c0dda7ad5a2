"""Losses of the scores of all documents of a batch for every query, as late interaction gives."""

import jax
import jax.numpy as jnp

from modernbert_jax.errors import UserError

from . import inputs


def multiple_negatives_ranking(
    scores: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | jax.Array = 1.0,
) -> jax.Array:
    """Cross-entropy of a query's positive among all documents of the batch (InfoNCE).

    The contrastive loss of ColBERT (Khattab and Zaharia 2020) with all documents of the batch as
    negatives. The scale is 1 by default, since MaxSim is a sum over the query's tokens.

    Args:
        scores: Scores [K, N, N]: of document k of example n for query q, at [k, n, q]. Document 0
            of an example is the positive of its query.
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        scale: Factor of scores, 1 / temperature; an array where it is learned.

    Returns:
        The mean over queries, float32.

    Raises:
        UserError: shapes that do not fit.
    """
    name = "multiple-negatives-ranking"
    inputs.positive(name, scale=scale)
    scores = jnp.asarray(scores)
    if scores.ndim != 3 or scores.shape[1] != scores.shape[2]:
        raise UserError(f"{name}: scores {scores.shape} must be [documents, examples, queries]")
    columns, examples, _ = scores.shape
    valid = jnp.ones(examples, bool) if valid is None else jnp.asarray(valid, bool)
    mask = jnp.ones((columns, examples), bool) if mask is None else jnp.asarray(mask, bool)
    mask &= valid
    exists = mask[..., None] & valid
    logits = jnp.where(exists, scores.astype(jnp.float32) * scale, inputs.NOTHING)
    right = jnp.diagonal(logits[0])
    partition = jax.nn.logsumexp(logits, axis=(0, 1))
    return inputs.mean(partition - right, valid & mask[0])

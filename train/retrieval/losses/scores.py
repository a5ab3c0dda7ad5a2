"""Losses of scores: of single pairs, of margins, of a teacher, of a positive among negatives."""

from typing import Literal

import jax
import jax.numpy as jnp

from . import inputs

_SPREAD = 1e-8
"""Added to the spread of the scores that are scaled to 0..1; PyLate's."""

_LABEL = "a label of each document"


def binary_cross_entropy(
    scores: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    pos_weight: float = 1.0,
) -> jax.Array:
    """Binary cross-entropy of every pair of query and document.

    Args:
        scores: Scores [K, N], before any activation.
        targets: Labels [N, K], or [N] of single documents: 1 for relevant, 0 for not.
        valid: Queries that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        pos_weight: Weight of label 1; the number of negatives per positive balances both.

    Returns:
        The mean over pairs, float32.

    Raises:
        UserError: shapes that do not fit.
    """
    name = "binary-cross-entropy"
    inputs.positive(name, pos_weight=pos_weight)
    batch = inputs.scores(name, scores, valid, mask)
    labels = inputs.targets(name, targets, *_shape(batch), _LABEL)
    losses = -pos_weight * labels * jax.nn.log_sigmoid(batch.scores)
    losses -= (1 - labels) * jax.nn.log_sigmoid(-batch.scores)
    return inputs.mean(losses, batch.mask)


def mse(
    scores: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Squared error of every score against the teacher's, as a mean over pairs, float32.

    Args:
        scores: Scores [K, N], before any activation.
        targets: The teacher's scores [N, K], or [N] of single documents.
        valid: Queries that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.

    Raises:
        UserError: shapes that do not fit.
    """
    batch = inputs.scores("mse", scores, valid, mask)
    wanted = inputs.targets("mse", targets, *_shape(batch), "a score of each document")
    return inputs.mean(jnp.square(batch.scores - wanted), batch.mask)


def margin_mse(
    scores: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Squared error of the positive's margin over each negative (Hofstätter et al. 2021).

    Args:
        scores: Scores [K, N], before any activation: of positives, then of negatives.
        targets: The teacher's scores of the K documents, [N, K], or its K - 1 margins, [N, K - 1].
        valid: Queries that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.

    Returns:
        The mean over negatives, float32.

    Raises:
        UserError: shapes that do not fit.
    """
    name = "margin-mse"
    batch = inputs.scores(name, scores, valid, mask, least=2)
    examples, (documents,) = _shape(batch)
    sizes = (documents, documents - 1)
    wanted = inputs.targets(name, targets, examples, sizes, "scores of the documents, or margins")
    if wanted.shape[1] == documents:
        wanted = wanted[:, :1] - wanted[:, 1:]
    margins = batch.scores[:, :1] - batch.scores[:, 1:]
    return inputs.mean(jnp.square(margins - wanted), batch.mask[:, :1] & batch.mask[:, 1:])


def distill_kl(
    scores: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    temperature: float | jax.Array = 1.0,
    student_temperature: float | jax.Array | None = None,
    teacher_temperature: float | jax.Array | None = None,
    normalize_scores: bool = False,
) -> jax.Array:
    """Divergence of the scores of a query's documents from the teacher's (Lin et al. 2020).

    Args:
        scores: Scores [K, N] of at least two documents.
        targets: The teacher's scores of the documents, [N, K].
        valid: Queries that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        temperature: Divisor of both models' scores.
        student_temperature: Divisor of the trained model's scores; None means `temperature`.
        teacher_temperature: Divisor of the teacher's scores; None means `temperature`.
        normalize_scores: Whether the trained model's scores of a query are scaled to 0..1 before
            they are divided, as PyLate does by default.

    Returns:
        The mean Kullback-Leibler divergence in nats times the square of the student's temperature,
        float32.

    Raises:
        UserError: shapes that do not fit.
    """
    name = "distill-kl"
    student_t = temperature if student_temperature is None else student_temperature
    teacher_t = temperature if teacher_temperature is None else teacher_temperature
    inputs.positive(name, temperature=temperature)
    inputs.positive(name, student_temperature=student_t, teacher_temperature=teacher_t)
    batch = inputs.scores(name, scores, valid, mask, least=2)
    wanted = inputs.targets(name, targets, *_shape(batch), "a score of each document")
    student = batch.scores
    if normalize_scores:
        least = jnp.where(batch.mask, student, jnp.inf).min(1, keepdims=True)
        most = jnp.where(batch.mask, student, -jnp.inf).max(1, keepdims=True)
        least, most = (jnp.where(jnp.isfinite(x), x, 0.0) for x in (least, most))
        student = (student - least) / (most - least + _SPREAD)
    student = jax.nn.log_softmax(jnp.where(batch.mask, student / student_t, inputs.NOTHING))
    teacher = jax.nn.log_softmax(jnp.where(batch.mask, wanted / teacher_t, inputs.NOTHING))
    divergences = (jnp.exp(teacher) * (teacher - student)).sum(1)
    return inputs.mean(divergences, batch.valid) * student_t**2


def multiple_negatives_ranking(
    scores: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float = 10.0,
    activation: Literal["sigmoid", "identity"] = "sigmoid",
) -> jax.Array:
    """Cross-entropy of a query's positive among the documents that were scored for it.

    Which documents of other queries are scored is drawn with the batch: by default 4.

    Args:
        scores: Scores [K, N], before any activation: of positives, then of negatives.
        valid: Queries that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        scale: Factor of activated scores, 1 / temperature.
        activation: Activation of the scores in this loss.

    Returns:
        The mean over queries, float32.

    Raises:
        UserError: shapes that do not fit, or an unknown activation.
    """
    name = "multiple-negatives-ranking"
    inputs.positive(name, scale=scale)
    inputs.one_of(name, "activation", activation, ("sigmoid", "identity"))
    batch = inputs.scores(name, scores, valid, mask, least=2)
    values = jax.nn.sigmoid(batch.scores) if activation == "sigmoid" else batch.scores
    logits = jnp.where(batch.mask, values * scale, inputs.NOTHING)
    return inputs.mean(-jax.nn.log_softmax(logits)[:, 0], batch.mask[:, 0])


def _shape(batch: inputs.Scores) -> tuple[int, tuple[int]]:
    """Number of queries, and that of documents as the only size of targets."""
    examples, documents = batch.scores.shape
    return examples, (documents,)

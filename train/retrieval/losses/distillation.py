"""Losses that take over a teacher: its margins, its distribution over documents, its vectors."""

from typing import Literal

import jax
import jax.numpy as jnp

from modernbert_jax.errors import UserError
from modernbert_jax.scoring.pairwise import PAIRWISE, Similarity, cosine, norm

from . import inputs, scores


def margin_mse(
    query: jax.Array,
    documents: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    similarity: Similarity = "dot",
) -> jax.Array:
    """Squared error of the positive's margin over each negative (Hofstätter et al. 2021).

    Args:
        query: Vectors [N, E].
        documents: Vectors [K, N, E]: positives, then columns of negatives.
        targets: The teacher's scores of the K documents, [N, K], or its K - 1 margins, [N, K - 1].
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        similarity: Similarity of two vectors.

    Returns:
        The mean over negatives, float32.

    Raises:
        UserError: shapes that do not fit, or an unknown similarity.
    """
    inputs.one_of("margin-mse", "similarity", similarity, list(PAIRWISE))
    batch = inputs.vectors("margin-mse", query, documents, valid, mask, least=2)
    student = PAIRWISE[similarity](batch.query, batch.documents)
    return scores.margin_mse(student, targets, valid=batch.valid, mask=batch.mask)


def distill_kl(
    query: jax.Array,
    documents: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    similarity: Similarity = "dot",
    temperature: float | jax.Array = 1.0,
    student_temperature: float | jax.Array | None = None,
    teacher_temperature: float | jax.Array | None = None,
) -> jax.Array:
    """Divergence of the scores of a query's documents from the teacher's (Lin et al. 2020).

    Args:
        query: Vectors [N, E].
        documents: Vectors [K, N, E], of at least two documents.
        targets: The teacher's scores of the documents, [N, K].
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        similarity: Similarity of two vectors.
        temperature: Divisor of both models' scores.
        student_temperature: Divisor of the trained model's scores; None means `temperature`.
        teacher_temperature: Divisor of the teacher's scores; None means `temperature`.

    Returns:
        The mean Kullback-Leibler divergence in nats times the square of the student's temperature,
        float32.

    Raises:
        UserError: shapes that do not fit, or an unknown similarity.
    """
    name = "distill-kl"
    inputs.one_of(name, "similarity", similarity, list(PAIRWISE))
    batch = inputs.vectors(name, query, documents, valid, mask, least=2)
    return scores.distill_kl(
        PAIRWISE[similarity](batch.query, batch.documents),
        targets,
        valid=batch.valid,
        mask=batch.mask,
        temperature=temperature,
        student_temperature=student_temperature,
        teacher_temperature=teacher_temperature,
    )


def embed_distill(
    query: jax.Array,
    documents: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    guide: jax.Array | None = None,
    distance_metric: Literal["cosine", "mse", "l2"] = "cosine",
) -> jax.Array:
    """Distance of every text's vector from a teacher's (EmbedDistill; Kim et al. 2023).

    Args:
        query: Vectors [N, E].
        documents: Vectors [K, N, E] or [N, E].
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        guide: The teacher's vectors of the same texts, [1 + K, N, E].
        distance_metric: 1 - cosine, the mean of squared differences over dimensions, or the
            Euclidean distance.

    Returns:
        The mean over texts of a column, then over columns, float32.

    Raises:
        UserError: shapes that do not fit, no teacher, or an unknown distance.
    """
    name = "embed-distill"
    inputs.one_of(name, "distance_metric", distance_metric, ("cosine", "mse", "l2"))
    batch = inputs.vectors(name, query, documents, valid, mask)
    wanted = inputs.teacher(name, guide, len(batch.documents) + 1, len(batch.query))
    if wanted.shape[-1] != batch.query.shape[-1]:
        raise UserError(
            f"{name}: the teacher's vectors have {wanted.shape[-1]} dimensions and the model's"
            f" {batch.query.shape[-1]}; give the model a projection of {wanted.shape[-1]}"
        )
    vectors = jnp.concatenate([batch.query[None], batch.documents])
    exists = jnp.concatenate([batch.valid[None], batch.mask])
    if distance_metric == "cosine":
        distances = 1 - cosine(vectors, wanted)
    elif distance_metric == "mse":
        distances = jnp.square(vectors - wanted).mean(-1)
    else:
        distances = norm(vectors - wanted)
    # A column that no example has is one of other data sets.
    return inputs.mean(jax.vmap(inputs.mean)(distances, exists), exists.any(1))

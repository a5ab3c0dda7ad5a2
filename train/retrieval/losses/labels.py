"""Losses of pairs of texts with a label: how similar they are, or whether they belong together."""

from typing import Any

import jax
import jax.numpy as jnp

from modernbert_jax.scoring.pairwise import (
    DISTANCES,
    PAIRWISE,
    Distance,
    Similarity,
    cosine,
    distance,
    unit,
)

from . import inputs

_LABEL = "a label of each pair"


def cosent(
    query: jax.Array,
    documents: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | jax.Array = 20.0,
    similarity: Similarity = "cosine",
) -> jax.Array:
    """Rank the pairs of a batch by their labels (CoSENT; Huang et al. 2024).

    The loss is log(1 + sum of exp(scale * (s_i - s_j))) over all i, j with a smaller label of i.
    It is computed from the sorted labels, so that memory grows with N alone.

    Args:
        query: Vectors [N, E].
        documents: Vectors [1, N, E] or [N, E].
        targets: Labels [N, 1] or [N]; a larger one means more similar.
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [1, N]; None means all.
        scale: Factor of similarities, 1 / temperature; an array where it is learned.
        similarity: Similarity of two vectors.

    Returns:
        The loss of the batch, float32.

    Raises:
        UserError: shapes that do not fit, or an unknown similarity.
    """
    inputs.positive("cosent", scale=scale)
    inputs.one_of("cosent", "similarity", similarity, list(PAIRWISE))
    batch, labels = _labelled("cosent", query, documents, targets, valid, mask)
    scores = PAIRWISE[similarity](batch.query, batch.documents[0])
    return _ranked(scores * scale, labels, batch.valid)


def angle(
    query: jax.Array,
    documents: jax.Array,
    targets: jax.Array | None = None,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | jax.Array = 20.0,
) -> jax.Array:
    """CoSENT of an angle between vectors taken as complex numbers (AnglE; Li and Li 2024).

    The first half of a vector holds the real parts, the second half the imaginary ones. With more
    than two columns the first document of an example has its label, by default 1, and all others
    have 1 less the label.

    Args:
        query: Vectors [N, E].
        documents: Vectors [K, N, E] or [N, E].
        targets: Labels [N, 1] or [N]; None with several documents an example.
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        scale: Factor of similarities, 1 / temperature; an array where it is learned.

    Returns:
        The loss of the batch, float32.

    Raises:
        UserError: shapes that do not fit, or pairs without labels.
    """
    inputs.positive("angle", scale=scale)
    batch = inputs.vectors("angle", query, documents, valid, mask)
    columns, examples = batch.mask.shape
    if targets is None and columns > 1:
        targets = jnp.ones(examples)
    label = inputs.targets("angle", targets, examples, (1,), _LABEL)[:, 0]
    labels = jnp.stack([label, *[1 - label] * (columns - 1)])
    scores = _angle_similarity(batch.query, batch.documents)
    exists = batch.mask & batch.valid
    return _ranked(scores.reshape(-1) * scale, labels.reshape(-1), exists.reshape(-1))


def cosine_similarity(
    query: jax.Array,
    documents: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Squared error of the cosine of each pair against its label, as a mean, float32.

    Args:
        query: Vectors [N, E].
        documents: Vectors [1, N, E] or [N, E].
        targets: Labels [N, 1] or [N], cosines that are wanted.
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [1, N]; None means all.

    Raises:
        UserError: shapes that do not fit.
    """
    batch, labels = _labelled("cosine-similarity", query, documents, targets, valid, mask)
    errors = jnp.square(cosine(batch.query, batch.documents[0]) - labels)
    return inputs.mean(errors, batch.valid)


def contrastive(
    query: jax.Array,
    documents: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    distance_metric: Distance = "cosine",
    margin: float = 0.5,
) -> jax.Array:
    """Pull pairs labelled 1 together, and push those labelled 0 apart (Hadsell et al. 2006).

    Args:
        query: Vectors [N, E].
        documents: Vectors [1, N, E] or [N, E].
        targets: Labels [N, 1] or [N]: 1 for pairs that belong together, 0 for others.
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [1, N]; None means all.
        distance_metric: Distance of two vectors; of cosine it is 1 - cosine.
        margin: Distance from which pairs labelled 0 cost nothing.

    Returns:
        The mean of half the squares over pairs, float32.

    Raises:
        UserError: shapes that do not fit, or an unknown distance.
    """
    batch, labels, distances = _distances(
        "contrastive", query, documents, targets, valid, mask, distance_metric, margin
    )
    together = labels * jnp.square(distances)
    apart = (1 - labels) * jnp.square(jax.nn.relu(margin - distances))
    return inputs.mean(0.5 * (together + apart), batch.valid)


def online_contrastive(
    query: jax.Array,
    documents: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    distance_metric: Distance = "cosine",
    margin: float = 0.5,
) -> jax.Array:
    """Contrastive loss of the hard pairs of a batch alone: a sum, as sentence-transformers has it.

    Hard are pairs labelled 1 that are farther apart than the closest pair labelled 0, and pairs
    labelled 0 that are closer than the farthest pair labelled 1. Where a batch has one label only,
    pairs are compared with their mean. Other labels are left out.

    Args:
        query: Vectors [N, E].
        documents: Vectors [1, N, E] or [N, E].
        targets: Labels [N, 1] or [N]: 1 for pairs that belong together, 0 for others.
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [1, N]; None means all.
        distance_metric: Distance of two vectors; of cosine it is 1 - cosine.
        margin: Distance from which pairs labelled 0 cost nothing.

    Returns:
        The sum of squares over hard pairs, float32.

    Raises:
        UserError: shapes that do not fit, or an unknown distance.
    """
    batch, labels, distances = _distances(
        "online-contrastive", query, documents, targets, valid, mask, distance_metric, margin
    )
    same, other = (batch.valid & (labels == label) for label in (1, 0))
    farthest = jnp.max(distances, where=same, initial=-jnp.inf)
    closest = jnp.min(distances, where=other, initial=jnp.inf)
    farthest = jnp.where(same.any(), farthest, inputs.mean(distances, other))
    closest = jnp.where(other.any(), closest, inputs.mean(distances, same))
    together = jnp.where(same & (distances > closest), jnp.square(distances), 0.0)
    near = jnp.square(jax.nn.relu(margin - distances))
    return together.sum() + jnp.where(other & (distances < farthest), near, 0.0).sum()


def _labelled(
    name: str, query: Any, documents: Any, targets: Any, valid: Any, mask: Any
) -> tuple[inputs.Vectors, jax.Array]:
    """A batch of pairs, and their labels [N]."""
    batch = inputs.vectors(name, query, documents, valid, mask, most=1)
    return batch, inputs.targets(name, targets, len(batch.query), (1,), _LABEL)[:, 0]


def _distances(
    name: str, query: Any, documents: Any, targets: Any, valid: Any, mask: Any, metric: str, m: Any
) -> tuple[inputs.Vectors, jax.Array, jax.Array]:
    """A batch of pairs, their labels [N] and distances [N]."""
    inputs.not_negative(name, margin=m)
    inputs.one_of(name, "distance_metric", metric, DISTANCES)
    batch, labels = _labelled(name, query, documents, targets, valid, mask)
    return batch, labels, distance(metric, batch.query, batch.documents[0])


def _ranked(scores: jax.Array, labels: jax.Array, exists: jax.Array) -> jax.Array:
    """log(1 + sum of exp(s_i - s_j)) over all i, j with a smaller label of i; all are [n]."""
    order = jnp.argsort(labels)
    labels, scores, exists = labels[order], scores[order], exists[order]
    lower = jnp.where(exists, -scores, inputs.NOTHING)
    sums = jax.lax.cumlogsumexp(lower, reverse=True)  # of the scores from i on
    sums = jnp.append(sums, inputs.NOTHING)
    above = sums[jnp.searchsorted(labels, labels, side="right")]
    pairs = jnp.where(exists, scores, inputs.NOTHING) + above
    return jax.nn.logsumexp(jnp.append(pairs, 0.0))


def _angle_similarity(a: jax.Array, b: jax.Array) -> jax.Array:
    """Absolute sum of the real and imaginary part of a / b for unit vectors [..., E]: [...]."""
    if a.shape[-1] % 2:
        a, b = (jnp.pad(x, ((0, 0),) * (x.ndim - 1) + ((0, 1),)) for x in (a, b))
    a, b = unit(a), unit(b)
    (real_a, imaginary_a), (real_b, imaginary_b) = (jnp.split(x, 2, axis=-1) for x in (a, b))
    dot = (a * b).sum(-1)
    return jnp.abs(dot + (imaginary_a * real_b - real_a * imaginary_b).sum(-1))

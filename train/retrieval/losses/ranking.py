"""Losses that rank a query's positive above other texts: of the whole batch, or its negative."""

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from modernbert_jax.errors import UserError
from modernbert_jax.scoring.pairwise import DISTANCES, Distance, distance, dot, product, unit

from . import inputs
from .blocks import sum_over_queries

Direction = Literal["query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"]
DIRECTIONS = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
PARTITIONS = ("joint", "per_direction")
HARDNESS = (None, "in_batch_negatives", "hard_negatives", "all_negatives")


class _Pool(NamedTuple):
    """What every query is compared with: all texts of the batch."""

    queries: jax.Array  # [N, E]
    documents: jax.Array  # [K * N, E], column by column
    valid: jax.Array  # [N]
    mask: jax.Array  # [K * N]
    scale: jax.Array  # factor of similarities


class _Queries(NamedTuple):
    """A block of n queries."""

    query: jax.Array  # [n, E]
    positive: jax.Array  # [n, E]
    number: jax.Array  # [n], in the batch
    valid: jax.Array  # [n]


def multiple_negatives_ranking(
    query: jax.Array,
    documents: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | jax.Array = 20.0,
    similarity: Literal["cosine", "dot"] = "cosine",
    directions: Sequence[Direction] = ("query_to_doc",),
    partition_mode: Literal["joint", "per_direction"] = "joint",
    hardness_mode: Literal["in_batch_negatives", "hard_negatives", "all_negatives"] | None = None,
    hardness_strength: float = 0.0,
    block_size: int = 0,
) -> jax.Array:
    """Cross-entropy of a query's positive among all documents of the batch (InfoNCE).

    van den Oord et al. 2018 (arXiv:1807.03748); all four directions in one partition are Li et al.
    2023 (arXiv:2308.03281), the first and third in a partition each Günther et al. 2023
    (arXiv:2310.19923). Hardness weighting is Lan et al. 2025 (arXiv:2503.04812, in-batch negatives,
    strength 9) or Schechter Vera et al. 2025 (arXiv:2509.20354, hard negatives, strength 5).

    Args:
        query: Vectors [N, E].
        documents: Vectors [K, N, E]: positives, then columns of hard negatives. Or [N, E].
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        scale: Factor of similarities, 1 / temperature; an array where it is learned.
        similarity: Similarity of two vectors.
        directions: What competes with the positive pair: the query with documents
            (`query_to_doc`, required) or other queries (`query_to_query`), the positive with
            queries (`doc_to_query`) or documents of other queries (`doc_to_doc`).
        partition_mode: `joint` normalises once over all directions; `per_direction` normalises
            each and averages their losses, and needs the positive pair in every direction.
        hardness_mode: Negatives whose logits grow by `hardness_strength` times their similarity,
            without gradient: those of other queries, the query's own, both, or none.
        hardness_strength: Strength of hardness weighting; 0 disables it.
        block_size: Queries whose scores are in memory at once; 0 chooses it. No change in values.

    Returns:
        The mean over examples, float32.

    Raises:
        UserError: shapes that do not fit, or an unknown or contradictory option.
    """
    name = "multiple-negatives-ranking"
    inputs.positive(name, scale=scale)
    inputs.not_negative(name, hardness_strength=hardness_strength, block_size=block_size)
    inputs.one_of(name, "similarity", similarity, ("cosine", "dot"))
    inputs.one_of(name, "partition_mode", partition_mode, PARTITIONS)
    inputs.one_of(name, "hardness_mode", hardness_mode, HARDNESS)
    for direction in directions:
        inputs.one_of(name, "directions", direction, DIRECTIONS)
    if "query_to_doc" not in directions:
        raise UserError(f"{name}: directions must contain query_to_doc")
    alone = sorted({"query_to_query", "doc_to_doc"} & set(directions))
    if partition_mode == "per_direction" and alone:
        raise UserError(
            f"{name}: {alone[0]} never contains the positive pair; set partition_mode to joint"
        )
    batch = inputs.vectors(name, query, documents, valid, mask)
    pool, queries = _pool(batch, scale, similarity)
    function = functools.partial(
        _ranking_sum,
        directions=tuple(dict.fromkeys(directions)),
        joint=partition_mode == "joint",
        hardness=(hardness_mode, hardness_strength),
    )
    count = sum(len(_against(pool, direction)) for direction in set(directions))
    total = sum_over_queries(function, pool, queries, count, block_size)
    return total / jnp.maximum(batch.valid.sum(dtype=jnp.float32), 1.0)


def _pool(batch: inputs.Vectors, scale: Any, similarity: str) -> tuple[_Pool, _Queries]:
    """All texts as candidates, and all queries."""
    query, documents = batch.query, batch.documents
    if similarity == "cosine":
        query, documents = unit(query), unit(documents)
    flat, exists = documents.reshape(-1, documents.shape[-1]), batch.mask.reshape(-1)
    pool = _Pool(query, flat, batch.valid, exists, jnp.asarray(scale, jnp.float32))
    return pool, _Queries(query, documents[0], jnp.arange(len(query)), batch.valid)


def _against(pool: _Pool, direction: str) -> jax.Array:
    return pool.documents if direction.endswith("doc") else pool.queries


def _ranking_sum(
    pool: _Pool,
    queries: _Queries,
    *,
    directions: tuple[str, ...],
    joint: bool,
    hardness: tuple[str | None, float],
) -> jax.Array:
    """Sum of the losses of a block of queries."""
    documents = jnp.arange(len(pool.documents))
    number = queries.number[:, None]
    own = documents % len(pool.queries) == number
    positive = documents == number
    right = dot(queries.query, queries.positive) * pool.scale
    partitions = []
    for direction in directions:
        side = queries.query if direction.startswith("query") else queries.positive
        similarities = product(side, _against(pool, direction))
        logits = similarities * pool.scale
        if direction == "query_to_doc":
            mode, strength = hardness
            harder = {
                "hard_negatives": own & ~positive,
                "in_batch_negatives": ~own,
                "all_negatives": ~positive,
            }.get(mode or "")
            if harder is not None and strength:
                penalty = strength * jax.lax.stop_gradient(similarities)
                logits += jnp.where(harder, penalty, 0.0)
        exists = {
            "query_to_doc": pool.mask,
            "query_to_query": pool.valid & (jnp.arange(len(pool.queries)) != number),
            "doc_to_query": pool.valid,
            "doc_to_doc": pool.mask & ~own,
        }[direction]
        partitions.append(_log_partition(logits, exists))
    stacked = jnp.stack(partitions)
    partition = jax.nn.logsumexp(stacked, axis=0) if joint else stacked.mean(0)
    return jnp.where(queries.valid, partition - right, 0.0).sum()


def _log_partition(logits: jax.Array, exists: jax.Array) -> jax.Array:
    return jax.nn.logsumexp(jnp.where(exists, logits, inputs.NOTHING), axis=-1)


def gist(
    query: jax.Array,
    documents: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    guide: jax.Array | None = None,
    temperature: float | jax.Array = 0.01,
    margin_strategy: Literal["absolute", "relative"] = "absolute",
    margin: float = 0.0,
    contrast_anchors: bool = True,
    contrast_positives: bool = True,
    block_size: int = 0,
) -> jax.Array:
    """In-batch negatives without those that a guide model finds too similar (GISTEmbed).

    Solatorio 2024 (arXiv:2402.16829). A candidate is left out where the guide's cosine with it is
    larger than that of the positive pair, less the margin.

    Args:
        query: Vectors [N, E].
        documents: Vectors [K, N, E]: positives, then columns of hard negatives. Or [N, E].
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        guide: The guide's vectors of the same texts, [1 + K, N, G].
        temperature: Divisor of cosines; an array where it is learned.
        margin_strategy: Whether the margin is a cosine or a share of the positive pair's.
        margin: How much less similar than the positive a negative must be.
        contrast_anchors: Whether other queries are negatives of a query.
        contrast_positives: Whether other positives are negatives of a positive.
        block_size: Queries whose scores are in memory at once; 0 chooses it. No change in values.

    Returns:
        The mean over examples, float32.

    Raises:
        UserError: shapes that do not fit, no guide, or an unknown option.
    """
    name = "gist"
    inputs.positive(name, temperature=temperature)
    inputs.not_negative(name, block_size=block_size)
    inputs.one_of(name, "margin_strategy", margin_strategy, ("absolute", "relative"))
    batch = inputs.vectors(name, query, documents, valid, mask)
    columns, examples = len(batch.documents) + 1, len(batch.query)
    taught = unit(inputs.teacher(name, guide, columns, examples))
    pool, queries = _pool(batch, 1.0 / jnp.asarray(temperature, jnp.float32), "cosine")
    function = functools.partial(
        _guided_sum,
        relative=margin_strategy == "relative",
        margin=margin,
        anchors=contrast_anchors,
        positives=contrast_positives,
    )
    candidates = examples * (columns - 1 + contrast_anchors + contrast_positives)
    guided_pool = pool, taught[0], taught[1:].reshape(-1, taught.shape[-1])
    guided = queries, taught[0], taught[1]
    total = sum_over_queries(function, guided_pool, guided, 2 * candidates, block_size)
    return total / jnp.maximum(batch.valid.sum(dtype=jnp.float32), 1.0)


def _guided_sum(
    guided_pool: tuple[_Pool, jax.Array, jax.Array],
    guided: tuple[_Queries, jax.Array, jax.Array],
    *,
    relative: bool,
    margin: float,
    anchors: bool,
    positives: bool,
) -> jax.Array:
    """Sum of the losses of a block of queries; a guide's vectors are beside the model's own."""
    pool, guide_queries, guide_documents = guided_pool
    queries, guide_query, guide_positive = guided
    examples = len(pool.queries)
    pair = dot(guide_query, guide_positive)[:, None]
    limit = pair - (jnp.abs(pair) * margin if relative else margin)

    def logits(side, texts, guide_side, guide_texts):
        """Scores of texts, without those that are positives in the guide's eyes."""
        wrong = product(guide_side, guide_texts) > limit
        return jnp.where(wrong, inputs.NOTHING, product(side, texts) * pool.scale)

    number = queries.number[:, None]
    others = pool.valid & (jnp.arange(examples) != number)
    negative = pool.mask & (jnp.arange(len(pool.documents)) != number)
    right = dot(queries.query, queries.positive) * pool.scale
    ranked = logits(queries.query, pool.documents, guide_query, guide_documents)
    partitions = [right, _log_partition(ranked, negative)]
    if anchors:
        ranked = logits(queries.query, pool.queries, guide_query, guide_queries)
        partitions.append(_log_partition(ranked, others))
    if positives:
        same = pool.documents[:examples], guide_positive, guide_documents[:examples]
        partitions.append(_log_partition(logits(queries.positive, *same), others))
    partition = jax.nn.logsumexp(jnp.stack(partitions), axis=0)
    return jnp.where(queries.valid, partition - right, 0.0).sum()


def triplet(
    query: jax.Array,
    documents: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    distance_metric: Distance = "euclidean",
    triplet_margin: float = 5.0,
) -> jax.Array:
    """Hinge of the positive's distance plus a margin over the negative's (Hermans et al. 2017).

    Args:
        query: Vectors [N, E].
        documents: Vectors [2, N, E]: positives and negatives.
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [2, N]; None means all.
        distance_metric: Distance of two vectors; of cosine it is 1 - cosine.
        triplet_margin: How much farther than the positive the negative should be.

    Returns:
        The mean over examples, float32.

    Raises:
        UserError: shapes that do not fit, or an unknown distance.
    """
    name = "triplet"
    inputs.one_of(name, "distance_metric", distance_metric, DISTANCES)
    inputs.not_negative(name, triplet_margin=triplet_margin)
    batch = inputs.vectors(name, query, documents, valid, mask, least=2, most=2)
    near, far = (distance(distance_metric, batch.query, x) for x in batch.documents)
    return inputs.mean(jax.nn.relu(near - far + triplet_margin), batch.mask.all(0))

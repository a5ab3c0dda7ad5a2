"""Losses of a reranker's scores of whole lists of documents with graded labels."""

import functools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from . import inputs
from .blocks import sum_over_queries

Weighting = Literal["none", "ndcg-loss1", "ndcg-loss2", "lambda-rank", "ndcg-loss2++"]
WEIGHTINGS = ("none", "ndcg-loss1", "ndcg-loss2", "lambda-rank", "ndcg-loss2++")


def list_net(
    scores: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Cross-entropy of a list's scores against the softmax of its labels (Cao et al. 2007).

    Args:
        scores: Scores [K, N], before any activation.
        targets: Labels [N, K]; a larger one is more relevant.
        valid: Queries that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.

    Returns:
        The mean over lists, float32.

    Raises:
        UserError: shapes that do not fit.
    """
    batch, labels = _lists("list-net", scores, targets, valid, mask)
    predicted = jax.nn.log_softmax(jnp.where(batch.mask, batch.scores, inputs.NOTHING))
    wanted = jax.nn.softmax(jnp.where(batch.mask, labels, inputs.NOTHING))
    return inputs.mean(-jnp.where(batch.mask, wanted * predicted, 0.0).sum(-1), batch.valid)


def p_list_mle(
    scores: jax.Array,
    targets: jax.Array | None = None,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    respect_input_order: bool = True,
) -> jax.Array:
    """Negative log-likelihood of a list's right order, its first places weighing most.

    Lan et al. 2014: place i of n weighs 2^(n - i) - 1 of their sum.

    Args:
        scores: Scores [K, N], before any activation.
        targets: Labels [N, K]; None where the documents of a list come in the right order.
        valid: Queries that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        respect_input_order: Whether documents come in the right order; False sorts them by label.

    Returns:
        The mean over lists, float32.

    Raises:
        UserError: shapes that do not fit, or no labels where they are needed.
    """
    return _likelihood("p-list-mle", scores, targets, valid, mask, respect_input_order, True)


def list_mle(
    scores: jax.Array,
    targets: jax.Array | None = None,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    respect_input_order: bool = True,
) -> jax.Array:
    """Negative log-likelihood of a list's right order (Xia et al. 2008); see `p_list_mle`."""
    return _likelihood("list-mle", scores, targets, valid, mask, respect_input_order, False)


def rank_net(
    scores: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    k: int | None = None,
    sigma: float = 1.0,
    reduction_log: Literal["binary", "natural"] = "binary",
    block_size: int = 0,
) -> jax.Array:
    """Logistic loss of all pairs of a list in the right order (Burges et al. 2005).

    It is `lambda_loss` without weights.
    """
    return lambda_loss(
        scores,
        targets,
        valid=valid,
        mask=mask,
        weighting_scheme="none",
        k=k,
        sigma=sigma,
        reduction_log=reduction_log,
        block_size=block_size,
    )


def lambda_loss(
    scores: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    weighting_scheme: Weighting = "ndcg-loss2++",
    mu: float = 10.0,
    k: int | None = None,
    sigma: float = 1.0,
    eps: float = 1e-10,
    reduction_log: Literal["binary", "natural"] = "binary",
    block_size: int = 0,
) -> jax.Array:
    """Logistic loss of pairs weighted by what swapping them changes in nDCG (Wang et al. 2018).

    Values are small, and their size says little. Pairs of queries are computed in blocks, so that
    memory grows with the number of scores.

    Args:
        scores: Scores [K, N], before any activation.
        targets: Labels [N, K]; a larger one is more relevant, and those below 0 gain nothing.
        valid: Queries that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        weighting_scheme: Weights of pairs.
        mu: Weight of NDCGLoss2 beside LambdaRank's in `ndcg-loss2++`.
        k: Pairs without a document among the first k are left out; None takes all.
        sigma: Factor of differences of scores.
        eps: Smallest ideal DCG that is divided by.
        reduction_log: Base of the logarithm: bits or nats.
        block_size: Queries whose pairs are in memory at once; 0 chooses it. No change in values.

    Returns:
        The mean over pairs of the batch, float32.

    Raises:
        UserError: shapes that do not fit, or an unknown option.
    """
    name = "rank-net" if weighting_scheme == "none" else "lambda-loss"
    inputs.one_of(name, "weighting_scheme", weighting_scheme, WEIGHTINGS)
    inputs.one_of(name, "reduction_log", reduction_log, ("binary", "natural"))
    inputs.positive(name, sigma=sigma, eps=eps, **({} if k is None else {"k": k}))
    inputs.not_negative(name, mu=mu, block_size=block_size)
    batch, labels = _lists(name, scores, targets, valid, mask)
    length = batch.scores.shape[1]
    function = functools.partial(
        _pair_sums, scheme=weighting_scheme, mu=mu, k=min(k or length, length), sigma=sigma, eps=eps
    )
    queries = batch.scores, labels, batch.mask
    total, count = sum_over_queries(function, (), queries, length**2, block_size)
    loss = total / jnp.maximum(count, 1.0)
    return loss / math.log(2) if reduction_log == "binary" else loss


def adr_mse(
    scores: jax.Array,
    targets: jax.Array,
    *,
    valid: jax.Array | None = None,
    mask: jax.Array | None = None,
    alpha: float = 1.0,
    block_size: int = 0,
) -> jax.Array:
    """Squared error of soft ranks, discounted by the right rank (Schlatt et al. 2025).

    Args:
        scores: Scores [K, N], before any activation.
        targets: Labels [N, K]; a larger one is more relevant.
        valid: Queries that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        alpha: Steepness of soft ranks.
        block_size: Queries whose pairs are in memory at once; 0 chooses it. No change in values.

    Returns:
        The mean over documents, float32.

    Raises:
        UserError: shapes that do not fit.
    """
    inputs.positive("adr-mse", alpha=alpha)
    inputs.not_negative("adr-mse", block_size=block_size)
    batch, labels = _lists("adr-mse", scores, targets, valid, mask)
    queries = batch.scores, labels, batch.mask
    function = functools.partial(_rank_errors, alpha=alpha)
    total = sum_over_queries(function, (), queries, batch.scores.shape[1] ** 2, block_size)
    return total / jnp.maximum(batch.mask.sum(dtype=jnp.float32), 1.0)


def _lists(
    name: str, scores: Any, targets: Any, valid: Any, mask: Any
) -> tuple[inputs.Scores, jax.Array]:
    """A batch of lists, and their labels [N, K]."""
    batch = inputs.scores(name, scores, valid, mask)
    examples, documents = batch.scores.shape
    return batch, inputs.targets(name, targets, examples, (documents,), "a label of each document")


def _likelihood(
    name: str, scores: Any, targets: Any, valid: Any, mask: Any, in_order: bool, weighted: bool
) -> jax.Array:
    """The mean over lists of `list_mle`, or weighted by place of `p_list_mle`."""
    if in_order:
        batch = inputs.scores(name, scores, valid, mask)
        values, exists = batch.scores, batch.mask
    else:
        batch, labels = _lists(name, scores, targets, valid, mask)
        order = jnp.argsort(-jnp.where(batch.mask, labels, -jnp.inf), axis=1)
        values, exists = (jnp.take_along_axis(x, order, axis=1) for x in (batch.scores, batch.mask))
    remaining = jax.lax.cumlogsumexp(jnp.where(exists, values, inputs.NOTHING), 1, reverse=True)
    chances = jnp.where(exists, values - remaining, 0.0)
    if weighted:
        length = exists.sum(1, keepdims=True)
        place = jnp.cumsum(exists, axis=1)
        # Divided by a power of two where 2^length would overflow; the sum is divided too.
        excess = jnp.maximum(length - 127, 0)
        weights = jnp.exp2((length - place - excess).astype(jnp.float32))
        weights = (weights - jnp.exp2(-excess.astype(jnp.float32))) * exists
        chances *= weights / (weights.sum(1, keepdims=True) + 1e-10)
    return inputs.mean(-chances.sum(1), batch.valid)


def _pair_sums(
    _: Any, queries: Any, *, scheme: str, mu: float, k: int, sigma: float, eps: float
) -> tuple[jax.Array, jax.Array]:
    """Sum of the losses of all pairs in a block of lists, in nats, and the number of pairs."""
    scores, labels, mask = queries
    order = jnp.argsort(-jnp.where(mask, scores, -jnp.inf), axis=1)
    scores, labels, mask = (jnp.take_along_axis(x, order, axis=1) for x in queries)
    length = scores.shape[1]
    discount = jnp.log2(1.0 + jnp.arange(1, length + 1, dtype=jnp.float32))
    gains = jnp.where(mask, jnp.exp2(jnp.maximum(labels, 0.0)) - 1, 0.0)
    ideal = (-jnp.sort(-gains, axis=1)[:, :k] / discount[:k]).sum(1)
    gains /= jnp.maximum(ideal, eps)[:, None]
    weights = _weights(scheme, mu, gains, discount)
    pairs = mask[:, :, None] & mask[:, None, :]
    if scheme != "ndcg-loss1":
        pairs &= labels[:, :, None] > labels[:, None, :]
    first = jnp.arange(length) < k
    pairs &= first[:, None] | first[None, :]
    differences = scores[:, :, None] - scores[:, None, :]
    losses = -weights * jax.nn.log_sigmoid(sigma * differences)
    return jnp.where(pairs, losses, 0.0).sum(), pairs.sum(dtype=jnp.float32)


def _weights(scheme: str, mu: float, gains: jax.Array, discount: jax.Array) -> jax.Array:
    """Weights of pairs [n, K, K], or of a shape that broadcasts, by gains [n, K] and discounts."""
    if scheme == "none":
        return jnp.ones(())
    if scheme == "ndcg-loss1":
        return (gains / discount)[:, :, None]
    between = jnp.abs(gains[:, :, None] - gains[:, None, :])
    inverse = 1 / discount
    swapped = jnp.abs(inverse[:, None] - inverse[None, :]) * between  # LambdaRank
    if scheme == "lambda-rank":
        return swapped
    place = jnp.arange(len(discount))
    apart = jnp.abs(place[:, None] - place[None, :])
    following = inverse[apart]
    bound = jnp.where(apart > 0, jnp.abs(inverse[apart - 1] - following), 0.0) * between
    return bound if scheme == "ndcg-loss2" else mu * bound + swapped


def _rank_errors(_: Any, queries: Any, *, alpha: float) -> jax.Array:
    """Sum of the discounted squared errors of all ranks in a block of lists."""
    scores, labels, mask = queries
    other = mask[:, None, :]
    above = (labels[:, None, :] > labels[:, :, None]) & other
    equal = (labels[:, None, :] == labels[:, :, None]) & other
    right = above.sum(-1) + (equal.sum(-1) + 1) / 2  # ties share the mean of their ranks
    lower = jax.nn.sigmoid(alpha * (scores[:, None, :] - scores[:, :, None])) * other
    soft = 1 + lower.sum(-1) - 0.5 * mask
    errors = jnp.square(right - soft) / jnp.log2(right + 1)
    return jnp.where(mask, errors, 0.0).sum()

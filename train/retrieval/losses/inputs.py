"""Checks of what losses take, and the arrays that they compute with: float32, missing ones zero."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from modernbert_jax.errors import UserError

NOTHING = -1e30
"""Logit of candidates that are left out; finite, so that no gradient is NaN."""


class Vectors(NamedTuple):
    """Vectors of N examples by column; those that do not exist are zero."""

    query: jax.Array
    """Queries, float32 [N, E]."""
    documents: jax.Array
    """Documents by column, the positive first, float32 [K, N, E]."""
    valid: jax.Array
    """Examples that exist and have a first document, bool [N]."""
    mask: jax.Array
    """Documents that exist, of examples that exist, bool [K, N]."""


class Scores(NamedTuple):
    """Scores of K documents for each of N queries; those that do not exist are zero."""

    scores: jax.Array
    """Scores by query, float32 [N, K]."""
    valid: jax.Array
    """Queries that exist and have a document, bool [N]."""
    mask: jax.Array
    """Documents that exist, of queries that exist, bool [N, K]."""


def vectors(
    loss: str,
    query: Any,
    documents: Any,
    valid: Any = None,
    mask: Any = None,
    *,
    least: int = 1,
    most: int | None = None,
) -> Vectors:
    """Check the vectors of a batch.

    Args:
        loss: Name of the loss, for messages.
        query: Vectors [N, E].
        documents: Vectors [K, N, E], or [N, E] of a single column.
        valid: Examples that exist, bool [N]; None means all.
        mask: Documents that exist, bool [K, N]; None means all.
        least: Smallest K.
        most: Largest K; None is any.

    Raises:
        UserError: shapes that do not fit each other, or another number of columns.
    """
    query, documents = jnp.asarray(query), jnp.asarray(documents)
    if documents.ndim == 2:
        documents = documents[None]
    if query.ndim != 2 or documents.ndim != 3 or documents.shape[1:] != query.shape:
        raise UserError(
            f"{loss}: queries {query.shape} and documents {documents.shape} do not fit; they must"
            " be [examples, dimensions] and [columns, examples, dimensions]"
        )
    columns = len(documents)
    if columns < least or (most is not None and columns > most):
        raise UserError(
            f"{loss}: needs {_range(least + 1, None if most is None else most + 1)} columns of"
            f" texts, query included; there are {columns + 1}"
        )
    valid, mask = _existing(loss, valid, mask, documents.shape[:2])
    documents = jnp.where(mask[..., None], documents.astype(jnp.float32), 0.0)
    query = jnp.where(valid[:, None], query.astype(jnp.float32), 0.0)
    return Vectors(query, documents, valid & mask[0], mask)


def scores(loss: str, x: Any, valid: Any = None, mask: Any = None, *, least: int = 1) -> Scores:
    """Check the scores [K, N] of a batch, and order them by query; see `vectors`."""
    x = jnp.asarray(x)
    if x.ndim != 2:
        raise UserError(f"{loss}: scores {x.shape} must be [documents, queries]")
    if len(x) < least:
        raise UserError(f"{loss}: needs at least {least} documents a query; there are {len(x)}")
    valid, mask = _existing(loss, valid, mask, x.shape)
    x = jnp.where(mask, x.astype(jnp.float32), 0.0)
    return Scores(x.T, valid & mask.any(0), mask.T)


def targets(loss: str, x: Any, examples: int, sizes: Sequence[int], meaning: str) -> jax.Array:
    """Check targets [N, M], or [N] of one each: float32 [N, M], without gradient.

    Args:
        loss: Name of the loss, for messages.
        x: The targets.
        examples: N.
        sizes: What M may be.
        meaning: What a row of targets is, for messages.

    Raises:
        UserError: another shape, or no targets.
    """
    if x is None:
        raise UserError(f"{loss}: needs {meaning}; the data has none")
    x = jax.lax.stop_gradient(jnp.asarray(x).astype(jnp.float32))
    if x.ndim == 1:
        x = x[:, None]
    if x.ndim != 2 or x.shape[0] != examples or x.shape[1] not in sizes:
        expected = " or ".join(str(size) for size in sizes)
        raise UserError(
            f"{loss}: needs {meaning}, {expected} per example for {examples} examples;"
            f" the targets have shape {x.shape}"
        )
    return x


def teacher(loss: str, x: Any, columns: int, examples: int) -> jax.Array:
    """Check the vectors [C, N, G] of another model: float32, without gradient."""
    if x is None:
        raise UserError(f"{loss}: needs the vectors of a guide model")
    x = jax.lax.stop_gradient(jnp.asarray(x).astype(jnp.float32))
    if x.ndim != 3 or x.shape[:2] != (columns, examples):
        raise UserError(
            f"{loss}: the guide's vectors have shape {x.shape}; they must be"
            f" [{columns} columns, {examples} examples, dimensions]"
        )
    return x


def mean(losses: jax.Array, exists: jax.Array) -> jax.Array:
    """Mean of the losses that exist; 0 where none does."""
    total = jnp.where(exists, losses, 0.0).sum()
    return total / jnp.maximum(exists.sum(dtype=jnp.float32), 1.0)


def positive(loss: str, **values: Any) -> None:
    """Raise `UserError` for a number that is not finite and above 0; arrays are not looked at."""
    for name, value in values.items():
        if not isinstance(value, jax.Array) and not 0 < value < float("inf"):
            raise UserError(f"{loss}: {name} must be above 0, not {value}")


def not_negative(loss: str, **values: Any) -> None:
    """Raise `UserError` for a number below 0 or not finite; arrays are not looked at."""
    for name, value in values.items():
        if not isinstance(value, jax.Array) and not 0 <= value < float("inf"):
            raise UserError(f"{loss}: {name} must not be below 0, and is {value}")


def one_of(loss: str, name: str, value: Any, known: Sequence[Any]) -> None:
    """Raise `UserError` for a choice that is not known."""
    if value not in known:
        names = ", ".join(str(choice) for choice in known)
        raise UserError(f"{loss}: {name} is {value!r}; known: {names}")


def _existing(loss: str, valid: Any, mask: Any, shape: tuple[int, ...]) -> Any:
    """Examples [N] and documents [K, N] that exist."""
    valid = jnp.ones(shape[1], bool) if valid is None else jnp.asarray(valid, bool)
    mask = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask, bool)
    if valid.shape != shape[1:] or mask.shape != shape:
        raise UserError(
            f"{loss}: `valid` {valid.shape} and `mask` {mask.shape} must have the shapes"
            f" {shape[1:]} and {shape} of the examples and documents"
        )
    return valid, mask & valid


def _range(least: int, most: int | None) -> str:
    if most is None:
        return f"at least {least}"
    return str(least) if least == most else f"{least} to {most}"

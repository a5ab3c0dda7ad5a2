"""Microbatches of examples: packed rows of one shape, and numbers of the documents in them."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from modernbert_jax.inference.shapes import Row, Shape
from modernbert_jax.packing import Rows, TokenIds, rows_from
from modernbert_jax.sharding import RULES, global_array

_APART = 2**16
"""Between the dropout ids of the first tokens of two documents."""

Tree = TypeVar("Tree")


def laid_out(
    sequences: Sequence[Sequence[TokenIds]],
    rows: Sequence[Row],
    shape: Shape,
    *,
    stride: int | None = None,
    empty: int = 0,
) -> tuple[Rows, np.ndarray]:
    """Lay out a microbatch.

    Args:
        sequences: token ids of the sequences of every example of the batch.
        rows: the contents of each row, as pairs (example, sequence).
        shape: the fixed shape of microbatches.
        stride: between the numbers of the sequences of an example; None is the number of examples.
        empty: the number of documents that do not exist.

    Returns:
        Packed rows [B, T], and the numbers of their documents, int32 [B, S]: sequence j of example
        i has number i + stride * j, which is its own in the batch.
    """
    stride = len(sequences) if stride is None else stride
    documents = [sequences[i][j] for row in rows for i, j in row]
    ends = np.cumsum([len(row) for row in rows], dtype=int).tolist()
    of_rows = [list(range(a, b)) for a, b in zip([0, *ends], ends, strict=False)]
    of_rows += [[]] * (shape.rows - len(rows))
    numbers = np.full((shape.rows, shape.documents), empty, np.int32)
    for b, row in enumerate(rows):
        numbers[b, : len(row)] = [i + stride * j for i, j in row]
    return Rows(*rows_from(documents, of_rows, shape.length)), numbers


def stacked(parts: Sequence[Tree], empty: Tree, microbatches: int) -> Tree:
    """Stack microbatches along a first axis, filled up to a number with empty ones."""
    filled = [*parts, *[empty] * (microbatches - len(parts))]
    return jax.tree.map(lambda *x: np.stack(x), *filled)


def place(x: np.ndarray, mesh: Mesh, *kinds: str | None) -> Any:
    """Shard an array over the devices of all processes, each of which has it whole.

    Args:
        x: the array.
        mesh: the devices; without any the array stays as it is.
        kinds: kinds of its dimensions; see `sharding.ShardingRules`.
    """
    if mesh.empty or mesh.size == 1:
        return x
    return global_array(x, NamedSharding(mesh, RULES.spec(*kinds)))


def place_rows(rows: Rows, mesh: Mesh) -> Rows:
    """Shard packed rows [A, B, T]; see `place`."""
    return Rows(*(place(x, mesh, None, "rows", "tokens") for x in rows))


def dropout_ids(numbers: jax.Array, rows: Rows) -> jax.Array:
    """Dropout ids of tokens [B, T] from the numbers of their documents [B, S].

    What is dropped of a document so follows from its number, wherever it is packed.
    """
    of_tokens = jnp.take_along_axis(numbers, jnp.maximum(rows.segment_ids - 1, 0), axis=1)
    return _APART * of_tokens + rows.positions


def lengths_of(sequences: Iterable[Sequence[TokenIds]]) -> list[list[int]]:
    """Lengths of the sequences of each example, in tokens."""
    return [[len(ids) for ids in of_one] for of_one in sequences]

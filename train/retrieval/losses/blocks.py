"""Sums over the queries of a batch, each compared with a pool of candidates, block by block.

The scores of all queries with all candidates grow with the square of the batch. They are therefore
computed for one block of queries at a time, again in the backward pass, so that memory grows with
the batch alone. Devices that divide the rows of a batch divide the queries.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from modernbert_jax import sharding

SCORES = 2**22
"""Scores in a block at most (16 MiB in float32), unless a single query has more."""


def sum_over_queries(
    function: Callable[[Any, Any], Any],
    pool: Any,
    queries: Any,
    candidates: int,
    block_size: int = 0,
) -> Any:
    """Sum `function(pool, queries)` over blocks of queries; differentiable in both.

    Args:
        function: Function of the pool and a block of queries that returns a pytree of float32
            scalars. Queries that are filled in to complete a block are zero and False.
        pool: Pytree of arrays that every query needs, whole on each device.
        queries: Pytree of arrays [N, ...].
        candidates: Number of scores that a query needs.
        block_size: Queries in a block; 0 chooses it by the number of candidates.
    """
    leaves, tree = jax.tree.flatten(queries)
    sizes = sharding.free_axes()
    across = math.prod(sizes.get(axis, 1) for axis in sharding.RULES.tokens)
    pieces = across * math.prod(sizes.get(axis, 1) for axis in sharding.RULES.rows)
    own = -(-len(leaves[0]) // pieces)
    block = min(block_size or max(SCORES // candidates, 1), own)
    total = -(-own // block) * block * pieces

    def grid(x: jax.Array) -> jax.Array:
        """Queries as rows and tokens of a batch, so that a mesh divides them as it divides it."""
        x = jnp.pad(x, ((0, total - len(x)), *((0, 0),) * (x.ndim - 1)))
        return x.reshape(total // across, across, *x.shape[1:])

    def on_device(pool: Any, *rows: jax.Array) -> Any:
        blocks = [x.reshape(-1, block, *x.shape[2:]) for x in rows]
        first = [x[0] for x in blocks]

        def piece(pool: Any, leaves: list[jax.Array]) -> Any:
            return function(pool, jax.tree.unflatten(tree, leaves))

        if len(blocks[0]) == 1:
            return piece(pool, first)

        def add(sums: Any, leaves: list[jax.Array]) -> tuple[Any, None]:
            again = jax.checkpoint(piece, prevent_cse=False)  # a scan keeps it apart
            return jax.tree.map(jnp.add, sums, again(pool, leaves)), None

        shapes = jax.eval_shape(piece, pool, first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.scan(add, zeros, blocks)[0]

    return sharding.over_rows(on_device)(pool, *map(grid, leaves))

"""Attention on a mesh: every device computes its own rows, heads and tokens.

Nothing moves between devices but what `context` needs where rows themselves are cut.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from modernbert_jax.errors import UserError
from modernbert_jax.sharding import RULES


class Shards(NamedTuple):
    """Into how many pieces each dimension is cut."""

    rows: int
    tokens: int
    heads: int


def shards(shape: tuple[int, ...]) -> Shards:
    """The pieces of an array [B, T, N, H] under the mesh that is set; 1 of each without one.

    Raises:
        UserError: a dimension does not divide evenly.
    """
    pieces = Shards(*map(_size, _axes()))
    for what, number, n in zip(Shards._fields, shape, pieces, strict=False):
        if number % n:
            raise UserError(
                f"{number} {what} cannot be cut into {n} equal pieces; "
                f"change them or the mesh axes {', '.join(getattr(RULES, what))}"
            )
    return pieces


def over_mesh(function: Callable, q, k, v, ranges, rope) -> jax.Array:
    """`function` of the same arguments, each device with its own part; ranges are whole rows."""
    rows, tokens, heads = (axes or None for axes in _axes())
    if not (rows or tokens or heads):
        return function(q, k, v, ranges, rope)
    own = P(rows, tokens, heads, None)
    return jax.shard_map(
        function,
        in_specs=(own, own, own, P(rows), P(rows, tokens)),
        out_specs=own,
        check_vma=False,
    )(q, k, v, ranges, rope)


def _axes() -> tuple[tuple[str, ...], ...]:
    """Axes of the mesh over rows, tokens and heads, but those a caller's shard_map has taken."""
    mesh = jax.sharding.get_abstract_mesh()
    free = {
        name
        for name, kind, size in zip(mesh.axis_names, mesh.axis_types, mesh.axis_sizes, strict=True)
        if kind != AxisType.Manual and size > 1
    }
    return tuple(
        tuple(a for a in axes if a in free) for axes in (RULES.rows, RULES.tokens, RULES.heads)
    )


def _size(axes: tuple[str, ...]) -> int:
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    total = 1
    for axis in axes:
        total *= sizes[axis]
    return total

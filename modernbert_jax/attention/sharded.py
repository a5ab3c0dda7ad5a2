"""Attention on a mesh: every device computes its own rows and heads, and nothing moves."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from modernbert_jax.errors import UserError

ROW_AXES = ("data", "fsdp")
HEAD_AXES = ("tensor",)


class Shards(NamedTuple):
    """Into how many pieces rows and heads are cut."""

    rows: int
    heads: int


def shards(shape: tuple[int, ...]) -> Shards:
    """The pieces of an array [B, T, N, H] under the mesh that is set; 1 and 1 without one.

    Raises:
        UserError: rows or heads do not divide evenly.
    """
    sizes = _free_axes()
    found = Shards(*(_pieces(sizes, axes) for axes in (ROW_AXES, HEAD_AXES)))
    for what, number, pieces, axes in (
        ("rows", shape[0], found.rows, ROW_AXES),
        ("heads", shape[2], found.heads, HEAD_AXES),
    ):
        if number % pieces:
            named = " and ".join(axis for axis in axes if sizes.get(axis, 1) > 1)
            raise UserError(
                f"attention: {number} {what} cannot be cut into {pieces} equal pieces; change "
                f"their number or the size of the mesh over {named}"
            )
    return found


def over_mesh(function: Callable, q, k, v, ranges, rope) -> jax.Array:
    """`function` of the same arguments, each device with its own rows and heads of them.

    Axes of the mesh that are for neither rows nor heads must compute the same.
    """
    sizes = _free_axes()
    if math.prod(sizes.values()) == 1:
        return function(q, k, v, ranges, rope)
    # An axis that no argument is cut by costs the gradients a sum over it, though it be over one.
    alone = tuple(a for a, size in sizes.items() if size == 1 and a not in (*ROW_AXES, *HEAD_AXES))
    rows = (*(a for a in ROW_AXES if a in sizes), *alone) or None
    heads = tuple(a for a in HEAD_AXES if a in sizes) or None
    heads_too, rows_only = P(rows, None, heads, None), P(rows)
    return jax.shard_map(
        function,
        in_specs=(heads_too, heads_too, heads_too, rows_only, rows_only),
        out_specs=heads_too,
        axis_names=set(sizes),
        check_vma=False,
    )(q, k, v, ranges, rope)


def _free_axes() -> dict[str, int]:
    """Axes of the mesh with their sizes, but those that a caller's shard_map has taken."""
    mesh = jax.sharding.get_abstract_mesh()
    return {
        name: size
        for name, kind, size in zip(mesh.axis_names, mesh.axis_types, mesh.axis_sizes, strict=True)
        if kind != AxisType.Manual
    }


def _pieces(sizes: dict[str, int], axes: tuple[str, ...]) -> int:
    return math.prod(sizes.get(axis, 1) for axis in axes)

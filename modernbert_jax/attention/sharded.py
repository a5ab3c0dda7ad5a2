"""Attention on a mesh: every device computes its own rows and heads, and nothing moves."""

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
    rows, heads = (_size(axes) for axes in _axes())
    for what, number, pieces, axes in (
        ("rows", shape[0], rows, ROW_AXES),
        ("heads", shape[2], heads, HEAD_AXES),
    ):
        if number % pieces:
            raise UserError(
                f"{number} {what} cannot be cut into {pieces} equal pieces; "
                f"change them or the mesh axes {', '.join(axes)}"
            )
    return Shards(rows, heads)


def over_mesh(function: Callable, q, k, v, ranges, rope) -> jax.Array:
    """`function` of the same arguments, each device with its own rows and heads of them.

    Heads cross the border flat, [B, T, N * H] as projections leave them: on TPU a tensor
    [B, T, N, 64] is padded to 128 lanes, and one that a compiler keeps is a copy.
    """
    rows, heads = _axes()
    if not rows and not heads:
        return function(q, k, v, ranges, rope)
    head_dim = q.shape[-1]

    def on_one_device(q, k, v, ranges, rope):
        q, k, v = (x.reshape(*x.shape[:2], -1, head_dim) for x in (q, k, v))
        return flat(function(q, k, v, ranges, rope))

    def flat(x):
        return x.reshape(*x.shape[:2], -1)

    heads_too, rows_only = P(rows or None, None, heads or None), P(rows or None)
    out = jax.shard_map(
        on_one_device,
        in_specs=(heads_too, heads_too, heads_too, rows_only, rows_only),
        out_specs=heads_too,
        check_vma=False,
    )(flat(q), flat(k), flat(v), ranges, rope)
    return out.reshape(q.shape)


def _axes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Axes of the mesh over rows and over heads, but those that a caller's shard_map has taken."""
    mesh = jax.sharding.get_abstract_mesh()
    free = {
        name
        for name, kind, size in zip(mesh.axis_names, mesh.axis_types, mesh.axis_sizes, strict=True)
        if kind != AxisType.Manual and size > 1
    }
    rows, heads = (tuple(a for a in axes if a in free) for axes in (ROW_AXES, HEAD_AXES))
    return rows, heads


def _size(axes: tuple[str, ...]) -> int:
    sizes = dict(jax.sharding.get_abstract_mesh().shape)
    total = 1
    for axis in axes:
        total *= sizes[axis]
    return total

"""Attention on a mesh: every device computes its own rows, heads and tokens.

Devices communicate only where tokens of a row are divided; see `context`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec as P

from modernbert_jax.errors import UserError
from modernbert_jax.sharding import RULES, free_axes


class Shards(NamedTuple):
    """Number of pieces into which each dimension is divided."""

    rows: int
    tokens: int
    heads: int


def shards(shape: tuple[int, ...]) -> Shards:
    """The pieces of an array [B, T, N, H] under the current mesh; 1 of each without one.

    Raises:
        UserError: a dimension does not divide evenly.
    """
    sizes = free_axes()
    divided = Shards(*(_pieces(sizes, getattr(RULES, what)) for what in Shards._fields))
    for what, number, pieces in zip(Shards._fields, shape, divided, strict=False):
        if number % pieces:
            named = " and ".join(axis for axis in getattr(RULES, what) if sizes.get(axis, 1) > 1)
            raise UserError(
                f"attention: {number} {what} cannot be divided into {pieces} equal pieces; change "
                f"their number or the size of the mesh over {named}"
            )
    return divided


def over_mesh(
    function: Callable[..., jax.Array],
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    ranges: Any,
    rope: Any,
) -> jax.Array:
    """`function` on each device's own part of the arguments; ranges are those of whole rows.

    Heads enter and leave flat, [B, T, N * H] as projections return them: on TPU a tensor
    [B, T, N, 64] is padded to 128 lanes, which costs a copy. Devices along all other axes of the
    mesh compute the same.
    """
    sizes = free_axes()
    if math.prod(sizes.values()) == 1:
        return function(q, k, v, ranges, rope)
    head_dim = q.shape[-1]

    def flat(x):
        return x.reshape(*x.shape[:2], -1)

    def on_one_device(q, k, v, ranges, rope):
        q, k, v = (x.reshape(*x.shape[:2], -1, head_dim) for x in (q, k, v))
        return flat(function(q, k, v, ranges, rope))

    cut = {what: tuple(a for a in getattr(RULES, what) if a in sizes) for what in Shards._fields}
    # An axis that divides no argument would add a sum over it to the gradients, even of size one.
    used = {axis for axes in cut.values() for axis in axes}
    alone = tuple(a for a, size in sizes.items() if size == 1 and a not in used)
    rows, tokens, heads = (
        (*cut["rows"], *alone) or None,
        cut["tokens"] or None,
        cut["heads"] or None,
    )
    own = P(rows, tokens, heads)
    out = jax.shard_map(
        on_one_device,
        in_specs=(own, own, own, P(rows), P(rows, tokens)),
        out_specs=own,
        axis_names=set(sizes),
        check_vma=False,
    )(flat(q), flat(k), flat(v), ranges, rope)
    return out.reshape(q.shape)


def _pieces(sizes: dict[str, int], axes: tuple[str, ...]) -> int:
    return math.prod(sizes.get(axis, 1) for axis in axes)

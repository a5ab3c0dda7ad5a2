"""Attention over packed rows: one function over key ranges, and a module per implementation.

Documents are contiguous in a row, so that "same document and inside the window" is one interval of
keys per query. `key_ranges` computes the intervals, which every implementation takes.
"""

from typing import NamedTuple

import jax

from modernbert_jax.attention import context
from modernbert_jax.attention.choice import (
    IMPLEMENTATIONS,
    Call,
    Choice,
    check_name,
    choose,
    has_forward_mode,
)
from modernbert_jax.attention.choice import module_of as _module_of
from modernbert_jax.attention.ranges import KeyRanges, key_ranges
from modernbert_jax.attention.sharded import Shards, over_mesh, shards
from modernbert_jax.rope import RopeTable, rotate

__all__ = [
    "IMPLEMENTATIONS",
    "Call",
    "Choice",
    "KeyRanges",
    "attention",
    "check_name",
    "choose",
    "decide",
    "has_forward_mode",
    "key_ranges",
]


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    ranges: KeyRanges,
    *,
    window: int | None = None,
    rope: RopeTable | None = None,
    implementation: str = "auto",
) -> jax.Array:
    """Softmax attention of every query over its key range.

    Under a mesh (`jax.set_mesh`) every device computes its own rows and heads without
    communication, unless the mesh divides the tokens of a row: see `context`.

    Args:
        q, k, v: [B, T, N, H]. Scores are scaled by 1/sqrt(H) and computed in float32.
        ranges: from `key_ranges(segment_ids, window)`.
        window: the window of `ranges`, on which the choice of kernels depends.
        rope: rotary embedding of `q` and `k`, which the implementation applies first; None is none.
        implementation: a key of `IMPLEMENTATIONS`, or "auto".

    Returns:
        [B, T, N, H] in the dtype of `q`; zeros where a query has no key, as in padding.

    Raises:
        UserError: the implementation is unknown or cannot compute this; see `choice.choose`.
    """
    choice, pieces, frame = decide(
        q.shape,
        str(q.dtype),
        window=window,
        symmetric=ranges.queries is None,
        implementation=implementation,
    )
    module = _module_of(choice.name)

    def on_one_device(q, k, v, ranges, rope):
        if rope is not None:
            turn = getattr(module, "rotate", rotate)
            q, k = turn(q, rope), turn(k, rope)
        piece = q.shape[1]
        if pieces.tokens > 1:
            q, k, v, ranges = context.enter(q, k, v, ranges, frame)
        out = module.attention(q, k, v, ranges, window=window, **dict(choice.options))
        return context.leave(out, piece, frame) if pieces.tokens > 1 else out

    return over_mesh(on_one_device, q, k, v, ranges, rope)


class Decision(NamedTuple):
    """Computation of a call under the current mesh."""

    choice: Choice
    pieces: Shards
    frame: context.Frame


def decide(
    shape: tuple[int, ...],
    dtype: str,
    *,
    window: int | None,
    symmetric: bool = True,
    implementation: str = "auto",
) -> Decision:
    """The computation by `attention` of q, k and v of a shape [B, T, N, H].

    Raises:
        UserError: as `attention`.
    """
    pieces = shards(shape)
    frame = context.frame(shape[1], pieces.tokens, window, symmetric)
    call = Call.traced(
        dtype=dtype,
        length=frame.length,
        keys=frame.keys,
        heads=shape[2] // pieces.heads,
        head_dim=shape[3],
        window=window,
        symmetric=frame.symmetric,
    )
    return Decision(choose(implementation, call), pieces, frame)

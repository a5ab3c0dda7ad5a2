"""Attention over packed rows: one function over key ranges, and a module for each way to do it.

Documents lie contiguously in a row, so "same document and inside the window" is one interval of
keys per query. `key_ranges` finds the intervals; every implementation reads them and nothing else.
"""

from collections.abc import Callable

import jax

from modernbert_jax.attention.dense import dense
from modernbert_jax.attention.ranges import KeyRanges, key_ranges
from modernbert_jax.attention.xla_range import xla_range
from modernbert_jax.errors import UserError, did_you_mean

__all__ = ["IMPLEMENTATIONS", "KeyRanges", "attention", "choose", "key_ranges"]

Implementation = Callable[[jax.Array, jax.Array, jax.Array, KeyRanges], jax.Array]

IMPLEMENTATIONS: dict[str, Implementation] = {"dense": dense, "xla_range": xla_range}
"""`dense` is the oracle: it holds all T x T scores. `xla_range` runs on every backend."""


def choose(implementation: str, window: int | None) -> str:
    """The name of the implementation that `auto` stands for, or the one asked for, checked."""
    if implementation == "auto":
        return "xla_range"
    if implementation not in IMPLEMENTATIONS:
        raise UserError(
            f"attention is {implementation!r}; {did_you_mean(implementation, IMPLEMENTATIONS)}"
        )
    return implementation


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    ranges: KeyRanges,
    *,
    window: int | None = None,
    implementation: str = "auto",
) -> jax.Array:
    """Softmax attention of every query over its key range.

    Args:
        q, k, v: [B, T, N, H]. Scores are scaled by 1/sqrt(H) and computed in float32.
        ranges: from `key_ranges(segment_ids, window)`.
        window: the window that went into `ranges`; helps the choice, never changes the result.
        implementation: a key of `IMPLEMENTATIONS`, or "auto".

    Returns:
        [B, T, N, H] in the dtype of `q`; zeros where a query has no key, as padding has.
    """
    return IMPLEMENTATIONS[choose(implementation, window)](q, k, v, ranges)

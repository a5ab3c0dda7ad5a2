"""Reduce values of a pickle or a caller to ones that JSON can hold."""

from collections.abc import Mapping
from typing import Any

from modernbert_jax.errors import UserError

MAX_DEPTH = 64
MAX_NODES = 4_000_000
"""Largest number of values; a tokenizer of 256,000 words and 600,000 merges has two million."""


def value(x: Any) -> Any:
    """Copy dicts, lists, strings, numbers and None; anything else in them becomes None.

    Raises:
        UserError: the value is nested too deeply, or too large by references to itself.
    """
    return _copy(x, MAX_DEPTH, [MAX_NODES])


def _copy(x: Any, depth: int, remaining: list[int]) -> Any:
    remaining[0] -= 1
    if depth < 0 or remaining[0] < 0:
        raise UserError("a value that is nested without end")
    if isinstance(x, Mapping):
        return {str(k): _copy(v, depth - 1, remaining) for k, v in x.items()}
    if type(x) in (list, tuple):
        return [_copy(v, depth - 1, remaining) for v in x]
    return x if type(x) in (str, int, float, bool, type(None)) else None


def at(root: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The mapping at a path of keys, empty if a key is missing. Raises `UserError` for others."""
    inner = root
    for i, key in enumerate(path):
        inner = inner.get(key, {})
        if not isinstance(inner, Mapping):
            raise UserError(f"{'.'.join(path[: i + 1])} is a {type(inner).__name__}, not a dict")
    return inner

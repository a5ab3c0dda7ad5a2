"""Values that JSON can hold, out of values that a pickle or a caller made."""

from collections.abc import Mapping
from typing import Any

from modernbert_jax.errors import UserError

_DEPTH = 64
_NODES = 4_000_000
"""A tokenizer of 256,000 words and 600,000 merges has two million."""


def value(found: Any) -> Any:
    """A copy of dicts, lists, strings, numbers and None; anything else in it becomes None.

    Raises:
        UserError: a value so deep, or by references to itself so large, that nobody could use it.
    """
    return _copy(found, _DEPTH, [_NODES])


def _copy(found: Any, depth: int, left: list[int]) -> Any:
    left[0] -= 1
    if depth < 0 or left[0] < 0:
        raise UserError("a value that is nested without end")
    if isinstance(found, Mapping):
        return {str(k): _copy(v, depth - 1, left) for k, v in found.items()}
    if type(found) in (list, tuple):
        return [_copy(v, depth - 1, left) for v in found]
    return found if type(found) in (str, int, float, bool, type(None)) else None


def at(found: Any, *path: str) -> Mapping[str, Any]:
    """The mapping below nested ones; empty where there is none. Raises `UserError` for others."""
    for i, key in enumerate(path):
        found = found.get(key, {})
        if not isinstance(found, Mapping):
            raise UserError(f"{'.'.join(path[: i + 1])} is a {type(found).__name__}, not a dict")
    return found

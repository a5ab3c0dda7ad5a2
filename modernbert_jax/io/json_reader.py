"""Read JSON that others wrote: with limits, and with errors of one line that name the place."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError, clipped

from . import lfs
from .text import check_text, surrogate

BYTES = 2**28
"""Size of the largest file that is read as one JSON value."""

_PIECE = 2**20
"""Bytes that are read at a time, into a buffer of this size."""

DEPTH = 64
"""Nesting of lists and objects at most; no known format nests deeper than 20."""

DIGITS = 300
"""Digits of an integer at most, so that every one converts to a float."""


def parse_json(
    content: bytes | str,
    where: str = "",
    *,
    surrogates: bool = False,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Parse one JSON value, in UTF-8 with or without a byte order mark.

    NaN and Infinity are accepted, as Python writes them. Of equal keys the last one counts.

    Args:
        content: the value.
        where: name of the content in errors, such as "FILE" or "FILE:LINE"; errors have no name
            without it.
        surrogates: accept halves of surrogate pairs, for records of which only some texts are used;
            `check_text` refuses them there.
        object_pairs_hook: as that of `json.loads`.

    Raises:
        UserError: not JSON, not UTF-8, nested deeper than `DEPTH`, half a surrogate pair in a text,
            or an integer of more than `DIGITS` digits.
    """
    prefix = f"{where}: " if where else ""
    try:
        if isinstance(content, bytes | bytearray):
            content = content.decode(json.detect_encoding(content))
        text = content.removeprefix("\ufeff")
        value = json.loads(text, object_pairs_hook=object_pairs_hook, parse_int=_integer)
    except RecursionError:
        raise UserError(f"{prefix}not JSON (nested too deep)") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{prefix}not UTF-8 at byte {error.start}") from None
    except ValueError as error:
        raise UserError(f"{prefix}not JSON ({error})") from None
    escaped = not surrogates and ("\\ud" in text or "\\uD" in text or surrogate(text) is not None)
    if escaped or text.count("[") + text.count("{") > DEPTH:
        _check_inside(value, prefix, surrogates)
    return value


def parse_object(content: bytes | str, where: str = "") -> dict[str, Any]:
    """Parse a JSON object as `parse_json` does; another value raises `UserError`."""
    value = parse_json(content, where)
    if not isinstance(value, dict):
        prefix = f"{where}: " if where else ""
        raise UserError(f"{prefix}holds {_kind(value)}; it must be a JSON object")
    return value


def read_json(path: str | os.PathLike) -> dict[str, Any]:
    """Read a JSON object from a file. Raises `UserError` that names the file."""
    return parse_object(read_bytes(path), str(path))


def read_bytes(path: str | os.PathLike, limit: int = BYTES) -> bytes:
    """Read a small file. Raises `UserError` that names it, also for more than `limit` bytes."""
    path, content = Path(path), bytearray()
    try:
        with path.open("rb") as file:
            while len(content) <= limit and (piece := file.read(_PIECE)):
                content += piece
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:  # a zero byte in the name
        raise UserError(f"{ascii(str(path))[1:-1]}: cannot be read ({error})") from None
    if lfs.is_pointer(content):
        raise UserError(f"{path}: {lfs.PROBLEM}")
    if len(content) > limit:
        raise UserError(f"{path}: has more than {limit:,} bytes, too many for a file of its kind")
    return bytes(content)


def check_texts(value: Any, where: str = "") -> None:
    """Raise `UserError` for half a surrogate pair in a key or text of a JSON value."""
    _check_inside(value, f"{where}: " if where else "", False)


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"a number of {len(digits):,} digits")
    return int(digits)


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def _check_inside(value: Any, prefix: str, surrogates: bool) -> None:
    """Raise `UserError` for deep nesting, and for half a surrogate pair unless they may pass."""
    stack: list[tuple[int, Any, Any]] = [(1, None, value)]  # depth, place as (parent, key), value
    while stack:
        depth, place, inner = stack.pop()
        if depth > DEPTH and isinstance(inner, dict | list):
            raise UserError(f"{prefix}not JSON (nested more than {DEPTH} deep)")
        if isinstance(inner, str) and not surrogates:
            _check_surrogates(inner, place, prefix)
        elif isinstance(inner, dict):
            for key in () if surrogates else inner:
                _check_surrogates(key, place, prefix)
            stack += [(depth + 1, (place, key), x) for key, x in inner.items()]
        elif isinstance(inner, list):
            stack += [(depth + 1, (place, i), x) for i, x in enumerate(inner)]


def _check_surrogates(text: str, place: Any, prefix: str) -> None:
    keys: list[str] = []
    if text.isascii() or surrogate(text) is None:
        return
    while place is not None:
        place, key = place
        keys.append(str(key))
    name = clipped(".".join(reversed(keys)), 80)
    check_text(text, f"{prefix}{name}" if name else prefix.removesuffix(": "))

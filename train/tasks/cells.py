"""Lists in the cells of text tables: as JSON, or as Python prints them."""

import ast
import re
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import parse_json

_ITEM = re.compile(
    r"""\s*(?P<item>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|[-+]?\d{1,300}(?:\.\d*)?(?:e[-+]?\d+)?"""
    r"""|True|False|None|nan)\s*(?P<comma>,|$)""",
    re.DOTALL,
)
"""A value of a list, as `repr` writes it, and the comma after it."""


def parse_list(text: str) -> list[Any] | None:
    """Parse a list in brackets; None if the text is none, such as words between spaces.

    Python's lists, tuples and sets may hold texts, numbers, True, False and None. NumPy's arrays,
    which have no commas, are refused.

    Raises:
        UserError: square brackets around something else.
    """
    text = text.strip()
    if text[:1] + text[-1:] not in ("[]", "()", "{}"):
        return None
    if text[0] == "[":
        try:
            return list(parse_json(text))
        except UserError:
            pass
    values = _python(text[1:-1])
    if values is None and text[0] == "[":
        raise UserError("is a list in neither JSON nor Python; write it in JSON")
    return values


def _python(inside: str) -> list[Any] | None:
    """The values between brackets, or None if they are not written by Python."""
    values, at, end = [], 0, len(inside.rstrip())
    while at < end:
        match = _ITEM.match(inside, at)
        if match is None:
            return None
        item = match["item"]
        values.append(None if item == "nan" else ast.literal_eval(item))
        at = match.end()
    return values

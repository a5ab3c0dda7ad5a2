"""Checks of texts and names that others wrote, and their display where markup is read."""

import re
from typing import TYPE_CHECKING

from modernbert_jax.errors import UserError, clipped

if TYPE_CHECKING:
    import rich.text

__all__ = [
    "check_name",
    "check_text",
    "clipped",
    "for_plot",
    "for_terminal",
    "printable",
    "surrogate",
]

NAME = 255
"""Bytes of a name that becomes that of a file, at most: the limit of every file system."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029]")


def surrogate(text: str) -> str | None:
    """The first half of a surrogate pair in a text, as an escape; None without one."""
    match = None if text.isascii() else _SURROGATE.search(text)
    return ascii(match[0])[1:-1] if match else None


def check_text(text: object, where: str = "") -> str:
    """The text, if it can be encoded.

    Args:
        text: any value.
        where: its name in errors, such as "FILE:LINE: column 'text'".

    Raises:
        UserError: not a text, or half a surrogate pair in it, as Python reads from cut emojis and
            from bytes that are not UTF-8.
    """
    prefix = f"{where}: " if where else ""
    if not isinstance(text, str):
        raise UserError(f"{prefix}holds {type(text).__name__}, not a text")
    if (half := surrogate(text)) is not None:
        raise UserError(f"{prefix}not UTF-8: has {half}, half a surrogate pair; remove it")
    return text


def check_name(name: object, where: str = "", longest: int = NAME) -> str:
    """The name, if it can be that of a file, a label, a stage or a column.

    Args:
        name: any value.
        where: what it names, in errors.
        longest: bytes in UTF-8 at most.

    Raises:
        UserError: not a text, empty, too long, half a surrogate pair, or a control character such
            as NUL or a line break.
    """
    prefix = f"{where}: " if where else ""
    text = check_text(name, where)
    if not text:
        raise UserError(f"{prefix}the name is empty")
    if (control := _CONTROL.search(text)) is not None:
        shown = ascii(clipped(text, 40))
        raise UserError(f"{prefix}{shown} has the control character {control[0]!a}")
    if (size := len(text.encode())) > longest:
        shown = repr(clipped(text, 40))
        raise UserError(f"{prefix}{shown} has {size:,} bytes; a name has at most {longest}")
    return text


def printable(text: str) -> str:
    """The text with escapes for characters that a terminal would obey or could not show."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def for_terminal(text: object) -> "rich.text.Text":
    """A value as text in which rich reads no markup such as [bold] or :smile:."""
    from rich.text import Text

    return Text(printable(str(text)))


def for_plot(text: object) -> str:
    """A value as text in which matplotlib reads no formulas, and which legends do not leave out."""
    shown = str(text).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown

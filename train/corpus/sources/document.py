"""What every format yields: a document, or why there is none."""

from typing import NamedTuple

import numpy as np

Document = str | np.ndarray
"""A text, or token ids [n] where the corpus was tokenised before."""


class Bad(NamedTuple):
    """Something in a file that cannot be used."""

    place: str
    """Behind the file's path in messages, such as ":12" for line 12; may be empty."""
    reason: str
    """What counts are kept by, up to " at byte" or " (" and what follows."""


class Damaged(Exception):
    """The rest of a file cannot be read; the message says why."""


def problem(document: Document) -> str | None:
    """Why a document is of no use, or None if it is."""
    if not isinstance(document, str):
        return None if document.size else "empty"
    if "\0" in document:
        return "binary"
    try:
        document.encode()
    except UnicodeEncodeError as error:
        return f"not UTF-8 at byte {error.start}"
    return None if document.strip() else "empty"


def decoded(content: bytes, place: str = "") -> str | Bad:
    """Text from UTF-8, without a byte order mark; zeros betray what is not text at all."""
    if b"\0" in content:
        return Bad(place, "binary")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return Bad(place, f"not UTF-8 at byte {error.start}")

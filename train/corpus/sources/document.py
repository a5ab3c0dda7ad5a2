"""Source files, pieces of them, and documents: the types that all formats share."""

import dataclasses
from typing import NamedTuple

import numpy as np

from modernbert_jax.io.paths import Format, file_type

Document = str | np.ndarray
"""A text, or token ids [n] where the corpus is already tokenised."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A file of documents."""

    path: str
    """Local path or URL, as the user wrote it or as a pattern matched it."""
    bytes: int
    format: Format
    shard: str = ""
    """Entry of an MDS shard in its folder's index, as JSON; "" for other formats."""
    stored: str = ""
    """Path of the copy of standard input; "" for files."""

    @property
    def compressed(self) -> bool:
        """Whether the text is several times longer than the file."""
        return self.format == "parquet" or bool(file_type(self.path).compression)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """A file, or a range of it: bytes of JSON lines, row groups of Parquet."""

    source: Source
    start: int = 0
    stop: int | None = None
    """End of the range, exclusive; None is the end of the file."""


class Bad(NamedTuple):
    """Content of a file that cannot be used."""

    place: str
    """Position that messages append to the path, such as ":12" for line 12; may be empty."""
    reason: str
    """Explanation; counts are kept by the part before " at byte" or " ("."""


class Damaged(Exception):
    """The rest of a file cannot be read; the message is the reason."""


def problem(document: Document) -> str | None:
    """Explain why a document cannot be used; None if it can."""
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
    """Decode UTF-8 and drop a byte order mark; a zero byte means that it is not text."""
    if b"\0" in content:
        return Bad(place, "binary")
    try:
        return content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        return Bad(place, f"not UTF-8 at byte {error.start}")

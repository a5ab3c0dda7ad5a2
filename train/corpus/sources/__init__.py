"""Documents from local and remote files of every format, with one policy for unusable ones.

A module per format reads one local file and yields a `Document` or `Bad`. Finding files, fetching
them and handling unusable documents is common to all formats.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from modernbert_jax.errors import UserError

from . import line_records, mds, parquet, text
from .document import Bad, Damaged, Document, Piece, Source, problem
from .find import fetched, find

__all__ = ["Bad", "Corpus", "Document", "OnError", "Piece", "Source", "documents", "fetched"]

OnError = Literal["stop", "skip"]

_READ = {
    "text": text.read_text,
    "jsonl": text.read_jsonl,
    **dict.fromkeys(("json", "csv", "tsv"), line_records.read),
    "parquet": parquet.read,
    "mds": mds.read,
}


def documents(
    piece: Piece, path: Path, field: str, on_error: OnError, skipped: dict[str, int]
) -> Iterator[Document]:
    """Yield the usable documents of a piece, in file order.

    Args:
        piece: What to read.
        path: Local copy of the piece's file.
        field: Key or column of the text, in formats that have several.
        on_error: "stop" raises at the first document that is empty, binary, not UTF-8 or damaged;
            "skip" counts its reason in `skipped` and continues.
        skipped: Number of skipped documents by reason, updated in place.

    Raises:
        UserError: an unusable document, with `on_error="stop"`.
    """
    for item in _items(piece, path, field):
        if not isinstance(item, Bad):
            reason = problem(item)
            if reason is None:
                yield item
                continue
            item = Bad("", reason)
        if on_error == "stop":
            raise UserError(
                f"{piece.source.path}{item.place}: {item.reason}; remove it, or pass --on-error"
                " skip"
            )
        reason = item.reason.split(" at byte")[0].split(" (")[0]
        skipped[reason] = skipped.get(reason, 0) + 1


def _items(piece: Piece, path: Path, field: str) -> Iterator[Document | Bad]:
    """Yield everything that the format's module yields; a file without content is `Bad`."""
    if piece.source.format == "unread":
        yield Bad("", f"{Path(piece.source.path).suffix} files are not read")
        return
    count = 0
    try:
        for item in _READ[piece.source.format](path, piece, field):
            count += 1
            yield item
    except (Damaged, OSError) as error:
        yield Bad("", f"damaged or unreadable ({getattr(error, 'strerror', None) or error})")
        return
    if not count and not piece.start and piece.stop is None:
        yield Bad("", "empty")


@dataclasses.dataclass
class Corpus:
    """The documents of some files: a training corpus or a component of one."""

    paths: Sequence[str | Path]
    """Files, globs, MDS folders, folders to search, or URLs of these."""
    on_error: OnError = "stop"
    field: str = "text"
    """Key or column of the text, in formats that have several."""
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    """Documents skipped while iterating, by reason."""

    def __post_init__(self):
        self.sources = find(self.paths)

    @classmethod
    def find(cls, patterns: Sequence[str], **options) -> "Corpus":
        """All files that the patterns match, sorted. Raises `UserError` if one matches none."""
        return cls(patterns, **options)

    def __iter__(self) -> Iterator[str]:
        """Yield every usable text, in file order. Raises `UserError` for token ids."""
        for source in self.sources:
            with fetched(source) as path:
                piece = Piece(source=source)
                for document in documents(piece, path, self.field, self.on_error, self.skipped):
                    if not isinstance(document, str):
                        raise UserError(f"{source.path}: holds token ids; text is needed here")
                    yield document

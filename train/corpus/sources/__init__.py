"""Documents from files of every kind, here or behind a URL, and what was wrong with the others.

A module for each format reads one local file and yields a document (`str`, or token ids as an
array) or `Bad`; finding files, fetching them and what to do about bad ones is the same for all.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from modernbert_jax.errors import UserError

from . import mds, parquet, text
from .document import Bad, Damaged, Document, problem
from .find import Source, fetched, find

__all__ = ["Bad", "Corpus", "Document", "OnError", "Piece", "Source", "documents", "fetched"]

OnError = Literal["stop", "skip"]

_READ = {"text": text.read_text, "jsonl": text.read_jsonl, "parquet": parquet.read, "mds": mds.read}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Piece:
    """A file, or a stretch of one: bytes of JSON lines, row groups of Parquet."""

    source: Source
    start: int = 0
    stop: int | None = None
    """None is the end."""


def documents(
    piece: Piece, path: Path, field: str, on_error: OnError, skipped: dict[str, int]
) -> Iterator[Document]:
    """The usable documents of a piece, whose file lies at `path`, in the file's order.

    With `on_error="stop"` the first document that is empty, binary, not UTF-8 or damaged raises
    `UserError`; with "skip" its reason is counted in `skipped` and the next one follows.
    """
    for found in _every(piece, path, field):
        if not isinstance(found, Bad):
            reason = problem(found)
            found = Bad("", reason) if reason else found
        if not isinstance(found, Bad):
            yield found
        elif on_error == "stop":
            raise UserError(
                f"{piece.source.path}{found.place}: {found.reason}; remove it, or pass --on-error"
                " skip"
            )
        else:
            reason = found.reason.split(" at byte")[0].split(" (")[0]
            skipped[reason] = skipped.get(reason, 0) + 1


def _every(piece: Piece, path: Path, field: str) -> Iterator[Document | Bad]:
    """All that the format's module yields; a file without anything is `Bad` too."""
    source, nothing = piece.source, True
    if source.format == "unread":
        yield Bad("", f"{Path(source.path).suffix} files are not read")
        return
    try:
        for found in _READ[source.format](path, piece, field):
            nothing = False
            yield found
    except Damaged as error:
        nothing = False
        yield Bad("", f"damaged or unreadable ({error})")
    except OSError as error:
        nothing = False
        yield Bad("", f"damaged or unreadable ({error.strerror or error})")
    if nothing and not piece.start and piece.stop is None:
        yield Bad("", "empty")


@dataclasses.dataclass
class Corpus:
    """The documents of some files: a part of a training corpus, or the text for a tokenizer."""

    paths: Sequence[str | Path]
    """Files, globs, MDS folders, folders to search, or URLs of these."""
    on_error: OnError = "stop"
    field: str = "text"
    """Key or column of the text, where a file has several."""
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    """Reasons, and how many documents iterating left out for each."""

    def __post_init__(self):
        self.sources = find(self.paths)

    @classmethod
    def find(cls, patterns: Sequence[str], **options) -> "Corpus":
        """All files that the patterns match, sorted. Raises `UserError` if one matches none."""
        return cls(patterns, **options)

    def __iter__(self) -> Iterator[str]:
        """Every usable text, in the order of the files."""
        for source in self.sources:
            with fetched(source) as path:
                piece = Piece(source=source)
                for document in documents(piece, path, self.field, self.on_error, self.skipped):
                    if not isinstance(document, str):
                        raise UserError(f"{source.path}: holds token ids; text is needed here")
                    yield document

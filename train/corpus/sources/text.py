"""Plain text with one document per file, and JSON lines with one document per line."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from modernbert_jax.io.paths import file_type

from .compressed import CUT_OFF, lines_of
from .document import Bad, Damaged, Document, Piece, decoded
from .line_records import object_of, text_of


def read_text(path: Path, piece: Piece, field: str) -> Iterator[Document | Bad]:
    """Yield the whole file as one document.

    JSON lines under an unknown ending are `Bad`, since each of them was meant to be a document.
    """
    format, compression = file_type(piece.source.path)
    try:
        with lines_of(path, compression) as file:
            content = file.read()
    except CUT_OFF as error:
        raise Damaged(error) from None
    looks_wrong = format == "unknown" and _are_json_lines(content)
    yield (
        Bad("", "JSON lines under another ending, name it .jsonl")
        if looks_wrong
        else decoded(content)
    )


def read_jsonl(path: Path, piece: Piece, field: str) -> Iterator[Document | Bad]:
    """Yield each line that begins in the piece. Messages count lines from the start of the file."""
    with lines_of(path, file_type(piece.source.path).compression) as lines:
        position = _first_line(lines, piece.start)
        number = 0
        try:
            for line in lines:
                if piece.stop is not None and position >= piece.stop:
                    return
                position += len(line)
                number += 1
                if line.strip():
                    document = text_of(object_of(line), field)
                    if isinstance(document, Bad):
                        line_number = _lines_before(path, piece.start) + number
                        document = Bad(f":{line_number}", document.reason)
                    yield document
        except CUT_OFF as error:
            raise Damaged(error) from None


def _are_json_lines(content: bytes) -> bool:
    """Whether the first line is a JSON object, and the next one too if there is one."""
    lines = list(itertools.islice((line for line in io.BytesIO(content) if line.strip()), 2))
    objects = [object_of(line) for line in lines]
    return bool(objects) and all(isinstance(value, dict) and value for value in objects)


def _first_line(lines, start: int) -> int:
    """Seek the first line that begins at or after byte `start`, and return its position."""
    if not start:
        return 0
    lines.seek(start - 1)
    return start - 1 + len(lines.readline())


def _lines_before(path: Path, start: int) -> int:
    """Number of lines that begin before byte `start`; only messages need it."""
    if not start:
        return 0
    with open(path, "rb") as lines:
        position = count = 0
        for line in lines:
            if position >= start:
                break
            position += len(line)
            count += 1
        return count

"""Plain text with one document per file, and JSON lines with one document per line."""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from modernbert_jax.io.paths import file_type

from .document import Bad, Damaged, Document, Piece, decoded, problem

_CHUNK = 1 << 17
_WINDOW = 1 << 31
"""Bytes of the longest window, that of `zstd --ultra --long=31`."""


class _Zstandard(io.RawIOBase):
    """Decompresses frame by frame and, unlike the library's reader, notices a truncated one."""

    def __init__(self, path: Path):
        self._file = open(path, "rb")  # noqa: SIM115 - closed by close()
        self._context = zstandard.ZstdDecompressor(max_window_size=_WINDOW)
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        while not self._ready:
            content = self._frame.unused_data if self._frame and self._frame.eof else b""
            content = content or self._file.read(_CHUNK)
            if self._frame is None or self._frame.eof:
                if not content:
                    return 0
                self._frame = self._context.decompressobj()
            if not content:
                raise EOFError("compressed file ends early")
            self._ready = memoryview(self._frame.decompress(content))
        count = min(len(buffer), len(self._ready))
        buffer[:count], self._ready = self._ready[:count], self._ready[count:]
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


_OPEN: dict[str, Callable[..., Any]] = {
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".xz": lzma.open,
    ".zst": lambda path, mode: io.BufferedReader(_Zstandard(path), _CHUNK),
}
CUT_OFF = (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, lzma.LZMAError)
"""Exceptions that a damaged compressed file raises."""


def lines_of(path: Path, compression: str) -> BinaryIO:
    """Open a file to iterate over its lines as bytes; `compression` is that of `file_type`."""
    return _OPEN.get(compression, open)(path, "rb")


def read_text(path: Path, piece: Piece, field: str) -> Iterator[Document | Bad]:
    """Yield the whole file as one document."""
    yield decoded(path.read_bytes())


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
                    document = _document(line, field)
                    if isinstance(document, Bad):
                        line_number = _lines_before(path, piece.start) + number
                        document = Bad(f":{line_number}", document.reason)
                    yield document
        except CUT_OFF as error:
            raise Damaged(error) from None


def _document(line: bytes, field: str) -> Document | Bad:
    try:
        text = json.loads(line)[field]
    except UnicodeDecodeError:
        return Bad("", "not UTF-8")
    except (ValueError, RecursionError):
        return Bad("", "not JSON")
    except (KeyError, TypeError, IndexError):
        return Bad("", f"has no {field!r}")
    if not isinstance(text, str):
        return Bad("", f"{field!r} is not a string")
    reason = problem(text)
    return Bad("", reason) if reason else text


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

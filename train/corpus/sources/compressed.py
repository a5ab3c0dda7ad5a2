"""Lines of compressed files, with truncated ones noticed."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

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

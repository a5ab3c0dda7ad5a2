"""Text from files: one document for each plain file, one for each line of JSON lines."""

import dataclasses
import glob
import gzip
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import zstandard

from modernbert_jax.errors import UserError

OnError = Literal["stop", "skip"]

_OPEN = {
    ".jsonl": Path.open,
    ".jsonl.gz": gzip.open,
    ".jsonl.zst": lambda path, mode: io.BufferedReader(zstandard.open(path, mode)),
}
_OTHER = (".parquet", ".gz", ".zst", ".bz2", ".xz", ".zip", ".mds", ".arrow")
"""Endings of containers that are not read here; they must not pass for text."""


@dataclasses.dataclass
class Corpus:
    """The documents of some files, and what was wrong with those that were left out.

    With `on_error="stop"` the first document that is empty, binary, not UTF-8 or not readable
    raises `UserError`; with "skip" it is noted in `skipped` and the next one follows.
    """

    paths: list[Path]
    on_error: OnError = "stop"
    field: str = "text"
    """Key of the text in JSON lines."""
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    """Reasons, and how many documents were left out for each."""

    @classmethod
    def find(cls, patterns: Sequence[str], **options) -> "Corpus":
        """All files that the patterns match, sorted. Raises `UserError` if one matches none."""
        found: set[Path] = set()
        for pattern in patterns:
            matches = {Path(p) for p in glob.glob(pattern, recursive=True) if os.path.isfile(p)}
            if not matches:
                raise UserError(f"{pattern}: no such file")
            found |= matches
        return cls(sorted(found), **options)

    def __iter__(self) -> Iterator[str]:
        """Every usable document, in the order of the files."""
        for path in self.paths:
            yield from self._documents(path)

    def _documents(self, path: Path) -> Iterator[str]:
        ending = next((e for e in _OPEN if path.name.endswith(e)), None)
        if ending is None and path.suffix in _OTHER:
            self._wrong(str(path), f"{path.suffix} files are not read")
            return
        try:
            if ending is None:
                yield from self._text(str(path), path.read_bytes())
                return
            with _OPEN[ending](path, "rb") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield from self._json_line(f"{path}:{number}", line)
        except (OSError, EOFError, zstandard.ZstdError) as error:
            self._wrong(str(path), f"damaged or unreadable ({error})")

    def _json_line(self, place: str, line: bytes) -> Iterator[str]:
        try:
            text = json.loads(line)[self.field]
        except UnicodeDecodeError:
            self._wrong(place, "not UTF-8")
        except (ValueError, RecursionError):
            self._wrong(place, "not JSON")
        except (KeyError, TypeError, IndexError):
            self._wrong(place, f"has no {self.field!r}")
        else:
            if not isinstance(text, str):
                self._wrong(place, f"{self.field!r} is not a string")
            else:
                yield from self._text(place, text.encode(errors="surrogatepass"))

    def _text(self, place: str, content: bytes) -> Iterator[str]:
        if b"\0" in content:
            self._wrong(place, "binary")
            return
        try:
            text = content.decode()
        except UnicodeDecodeError as error:
            self._wrong(place, f"not UTF-8 at byte {error.start}")
            return
        if not text.strip():
            self._wrong(place, "empty")
            return
        yield text

    def _wrong(self, place: str, reason: str) -> None:
        if self.on_error == "stop":
            raise UserError(f"{place}: {reason}; remove it, or pass --on-error skip")
        reason = reason.split(" at byte")[0].split(" (")[0]
        self.skipped[reason] = self.skipped.get(reason, 0) + 1

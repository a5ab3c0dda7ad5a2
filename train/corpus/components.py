"""The corpus by components, and its division into units of work.

A unit is some files, or a part of one, of about the same amount of text. Units depend on the
files alone, never on who does the work, and each becomes files of rows of its own.
"""

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.store import is_remote

from .sources import Corpus, OnError, Piece, Source, parquet

UNIT_BYTES = 256 << 20
"""Text in a unit, about 64 million tokens: 8,000 rows of 8,192, whose last row may be half
empty, and less than a minute lost when a process is killed."""

_EXPANSION = 4
"""Text is about so much longer than a compressed file of it."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEYS = ("input", "weight", "epochs", "field")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusComponent:
    """A named part of the corpus."""

    corpus: Corpus
    weight: float | None = None
    """Share of the tokens in training, relative to the other parts."""
    epochs: float | None = None
    """How often its rows may be repeated in training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """What one process does at a time, and what is done again if it is killed."""

    component: str
    number: int
    field: str
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        """Its place in file names."""
        return f"{self.number:05d}"


def read_mixture(path: str | Path, on_error: OnError = "stop") -> dict[str, CorpusComponent]:
    """The components of a mixture file.

    TOML with a table for each: `[components.NAME]`, with `input`, a list of what `--input` takes
    (relative to the mixture file), and optionally `weight`, `epochs` and `field`.

    Raises:
        UserError: a file that is not TOML, unknown keys, values of the wrong type, no such input.
    """
    path = Path(path)
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: not TOML ({error})") from None
    for key in content:
        if key != "components":
            raise UserError(f"{path}: unknown key {key!r}; {did_you_mean(key, ['components'])}")
    tables = content.get("components")
    if not isinstance(tables, dict) or not tables:
        raise UserError(f"{path}: has no [components.NAME]")
    return {name: _part(path, name, table, on_error) for name, table in tables.items()}


def units(parts: Mapping[str, CorpusComponent]) -> list[WorkUnit]:
    """All units of all components, in order."""
    found = []
    for name, part in parts.items():
        pieces = [piece for source in part.corpus.sources for piece in _pieces(source)]
        groups: dict[int, list[Piece]] = {}
        total = sum(size for _, size in pieces)
        count = max(1, round(total / UNIT_BYTES))
        before = 0
        for piece, size in pieces:  # by the middle of the piece, so that units come out alike
            at = min(count - 1, int((before + size / 2) * count / total)) if total else 0
            groups.setdefault(at, []).append(piece)
            before += size
        found += [
            WorkUnit(component=name, number=i, field=part.corpus.field, pieces=tuple(group))
            for i, group in enumerate(groups.values())
        ]
    return found


def check_name(name: str) -> None:
    """Raises `UserError` for a component's name that cannot be a folder's."""
    if not _NAME.fullmatch(name) or name in ("tokenizer", "work"):
        raise UserError(
            f"component {name!r}: a name has letters, digits, '_', '-' and '.', and is neither"
            " tokenizer nor work"
        )


def _part(path: Path, name: str, table: Any, on_error: OnError) -> CorpusComponent:
    where = f"{path}: components.{name}"
    check_name(name)
    if not isinstance(table, dict):
        raise UserError(f"{where} is {table!r}; it must be a table")
    for key in table:
        if key not in _KEYS:
            raise UserError(f"{where}: unknown key {key!r}; {did_you_mean(key, _KEYS)}")
    patterns = table.get("input")
    if isinstance(patterns, str):
        patterns = [patterns]
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise UserError(f"{where}.input is {patterns!r}; it must be a list of files or globs")
    for key in ("weight", "epochs"):
        value = table.get(key)
        if key in table and (type(value) not in (int, float) or not 0 < value < float("inf")):
            raise UserError(f"{where}.{key} is {value!r}; it must be a number above 0")
    field = table.get("field", "text")
    if not isinstance(field, str):
        raise UserError(f"{where}.field is {field!r}; it must be a string")
    found = [p if is_remote(p) else str(path.parent / p) for p in patterns]
    number = {k: float(table[k]) for k in ("weight", "epochs") if k in table}
    return CorpusComponent(corpus=Corpus.find(found, field=field, on_error=on_error), **number)


def _pieces(source: Source) -> list[tuple[Piece, float]]:
    """A file whole, or in stretches of about a unit where its format can be entered halfway.

    Each with about how much text it holds, in bytes.
    """
    size = source.bytes * (_EXPANSION if source.compressed else 1)
    count = round(size / UNIT_BYTES)
    end = None
    if count > 1 and not is_remote(source.path):
        if source.format == "parquet":
            end = parquet.row_groups(Path(source.path))
        elif source.format == "jsonl" and not source.compressed:
            end = source.bytes
    if end is None or end < 2:
        return [(Piece(source=source), size)]
    count = min(count, end)
    cuts = [end * i // count for i in range(count)]
    stops = [*cuts[1:], None]
    return [
        (Piece(source=source, start=a, stop=b), size / count)
        for a, b in zip(cuts, stops, strict=True)
    ]

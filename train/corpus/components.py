"""The components of a corpus, the mixture file that names them, and their units of work.

A unit is some files, or a range of one, with about the same amount of text as any other. Units
depend on the files alone, never on the workers, and each becomes files of rows of its own.
"""

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modernbert_jax import ranges
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io import standard_input, text
from modernbert_jax.io.paths import expanded
from modernbert_jax.io.store import is_remote
from modernbert_jax.ranges import Positive

from .sources import Corpus, OnError, Piece, Source, parquet

UNIT_BYTES = 256 << 20
"""Text of a unit: about 64 million tokens or 8,000 rows of 8,192, the last of which may be half
empty. A killed process loses less than a minute of work."""

_EXPANSION = 4
"""Typical length of text relative to its compressed file."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_KEYS = ("input", "weight", "epochs", "field")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusComponent:
    """A named component of the corpus."""

    corpus: Corpus
    weight: Positive | None = None
    """Share of the tokens in training, relative to the other components; None is unspecified."""
    epochs: Positive | None = None
    """How often its rows may be read in training; None is any number of times."""

    def __post_init__(self):
        ranges.check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorkUnit:
    """The amount of work that one process does at a time, and repeats if it is killed."""

    component: str
    number: int
    field: str
    pieces: tuple[Piece, ...]

    @property
    def name(self) -> str:
        """The number as file names contain it."""
        return f"{self.number:05d}"


def read_mixture(path: str | Path, on_error: OnError = "stop") -> dict[str, CorpusComponent]:
    """Read the components of a mixture file.

    The file is TOML with a table for each, `[components.NAME]`. `input` lists what `--input` takes,
    relative to the mixture file; `weight`, `epochs` and `field` are optional.

    Raises:
        UserError: the file is not TOML, has unknown keys or values of the wrong type, or names
            input that does not exist.
    """
    path = Path(expanded(path))
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise UserError(f"{path}: not TOML (nested too deep)") from None
    except ValueError as error:
        raise UserError(f"{path}: not TOML ({error})") from None
    _check_keys(f"{path}", content, ("components",))
    tables = content.get("components")
    if not isinstance(tables, dict) or not tables:
        raise UserError(f"{path}: has no [components.NAME]")
    return {name: _component(path, name, table, on_error) for name, table in tables.items()}


def work_units(components: Mapping[str, CorpusComponent]) -> list[WorkUnit]:
    """Divide all components into units, in order."""
    units = []
    for name, component in components.items():
        pieces = [piece for source in component.corpus.sources for piece in _pieces(source)]
        groups: dict[int, list[Piece]] = {}
        total = sum(size for _, size in pieces)
        count = max(1, round(total / UNIT_BYTES))
        before = 0.0
        for piece, size in pieces:  # assigned by its middle, so that units come out alike
            i = min(count - 1, int((before + size / 2) * count / total)) if total else 0
            groups.setdefault(i, []).append(piece)
            before += size
        units += [
            WorkUnit(component=name, number=i, field=component.corpus.field, pieces=tuple(group))
            for i, group in enumerate(groups.values())
        ]
    return units


def check_name(name: str) -> None:
    """Raise `UserError` for a component's name that cannot be a folder's."""
    text.check_name(name, "component")
    if not _NAME.fullmatch(name) or name in ("tokenizer", "work"):
        raise UserError(
            f"component {name!r}: a name has letters, digits, '_', '-' and '.', and is neither"
            " tokenizer nor work"
        )


def _check_keys(where: str, table: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for key in table:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}; {did_you_mean(key, known)}")


def _component(path: Path, name: str, table: Any, on_error: OnError) -> CorpusComponent:
    where = f"{path}: components.{name}"
    check_name(name)
    if not isinstance(table, dict):
        raise UserError(f"{where} is {table!r}; it must be a table")
    _check_keys(where, table, _KEYS)
    patterns = table.get("input")
    if isinstance(patterns, str):
        patterns = [patterns]
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise UserError(f"{where}.input is {patterns!r}; it must be a list of files or globs")
    if standard_input.NAME in patterns:
        raise UserError(f"{where}.input has '-'; standard input can be given to --input alone")
    numbers = {key: table[key] for key in ("weight", "epochs") if key in table}
    for key, value in numbers.items():
        if type(value) not in (int, float) or not 0 < value < float("inf"):
            raise UserError(f"{where}.{key} is {value!r}; it must be a number above 0")
    field = table.get("field", "text")
    if not isinstance(field, str):
        raise UserError(f"{where}.field is {field!r}; it must be a string")
    paths = [p if is_remote(p) else str(path.parent / expanded(p)) for p in patterns]
    return CorpusComponent(
        corpus=Corpus(paths, on_error, field), **{k: float(v) for k, v in numbers.items()}
    )


def _pieces(source: Source) -> list[tuple[Piece, float]]:
    """A file's pieces with their approximate bytes of text: several where its format allows."""
    size = source.bytes * (_EXPANSION if source.compressed else 1)
    count, end = round(size / UNIT_BYTES), 1
    if count > 1 and not is_remote(source.path):
        if source.format == "parquet":
            end = parquet.row_groups(Path(source.path))
        elif source.format == "jsonl" and not source.compressed:
            end = source.bytes
    count = min(count, end)
    if count < 2:
        return [(Piece(source=source), size)]
    starts = [end * i // count for i in range(count)]
    return [
        (Piece(source=source, start=start, stop=stop), size / count)
        for start, stop in zip(starts, [*starts[1:], None], strict=True)
    ]

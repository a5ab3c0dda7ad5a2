"""Read labelled records: JSON lines, CSV, CoNLL, Parquet, Arrow and folders of `datasets`."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import read_json
from modernbert_jax.io.paths import ENDINGS, Format, file_type, matches

from ..corpus.sources import Source, fetched
from ..corpus.sources.document import decoded
from ..corpus.sources.text import CUT_OFF, lines_of
from . import arrow, tables
from .records import LabelNames, Lines, Problems, RawRecords, Record, Records


def read(paths: Sequence[str | Path]) -> Records:
    """Read all records of files, in the order of the paths.

    `.jsonl`, `.csv` and `.tsv` (each also `.gz` and `.zst`), `.json` (a list of objects, JSON
    lines, or SQuAD's nesting), `.conll` (words and tags in columns), `.parquet`, `.arrow`, and
    folders that `Dataset.save_to_disk` wrote. If a file declares the names of a column's numbers
    (`ClassLabel`), values are the names.

    Args:
        paths: Files, folders, globs of these, or URLs of files that fsspec reads.

    Raises:
        UserError: a path that matches nothing; or the first damaged records, in one line.
    """
    problems = Problems()
    records: list[Record] = []
    names: LabelNames = {}
    for path in _files(paths):
        count = len(records)
        with problems.at(path):
            rows, declared = _open(path)
            for column, labels in declared.items():
                if names.setdefault(column, labels) != labels:
                    raise UserError(
                        f"declares labels of {column!r} that differ from those of another file"
                    )
            for number, values in rows:
                place = f"{path}:{number}"
                with problems.at(place):
                    if isinstance(values, UserError):
                        raise values
                    records.append(Record(place, _named(values, declared)))
            if len(records) == count:
                problems.check()
                raise UserError("holds no records")
    problems.check()
    return Records(records, names)


def _files(paths: Sequence[str | Path]) -> Iterator[str]:
    if isinstance(paths, str | Path):
        paths = [paths]
    for written in paths:
        for path, is_folder in matches(written):
            if is_folder:
                _check_folder(path)
            yield path


def _check_folder(path: str) -> None:
    inside = {p.name for p in Path(path).iterdir()} if Path(path).is_dir() else set()
    if "dataset_dict.json" in inside:
        splits = read_json(Path(path) / "dataset_dict.json").get("splits", [])
        listed = ", ".join(f"{path}/{split}" for split in splits)
        raise UserError(f"{path}: holds several splits; name one of them: {listed}")
    if "state.json" not in inside:
        raise UserError(
            f"{path}: is a folder, but not a saved dataset; name the files in it: {path}/*"
        )


def _open(path: str) -> tuple[RawRecords, LabelNames]:
    """Open a file or folder: its records, and the label names that it declares."""
    if Path(path).is_dir():
        return arrow.folder(Path(path))
    format, compression = file_type(path)
    if format in ("parquet", "arrow"):
        return arrow.file(path, format)
    if format not in _LINES:
        known = ", ".join(e for e, f in ENDINGS.items() if f in (*_LINES, "parquet", "arrow"))
        raise UserError(f"{Path(path).suffix or 'no ending'} is not read; known: {known}")
    return _LINES[format](_lines(path, compression)), {}


def _lines(path: str, compression: str) -> Lines:
    """Yield numbered lines with their line ends; a bad line does not stop the others."""
    source = Source(path=path, bytes=0, format="unread")
    try:
        with fetched(source) as local, lines_of(local, compression) as lines:
            for number, line in enumerate(lines, start=1):
                text = decoded(line)
                yield number, text if isinstance(text, str) else UserError(text.reason)
    except CUT_OFF as error:
        raise UserError(f"damaged or unreadable ({error})") from None
    except OSError as error:
        raise UserError(f"damaged or unreadable ({error.strerror or error})") from None


def _json_lines(lines: Lines) -> RawRecords:
    for number, line in lines:
        if isinstance(line, UserError):
            yield number, line
        elif line.strip():
            yield number, _object(line)


def _object(line: str) -> dict[str, Any] | UserError:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        return UserError(f"not JSON ({error})")
    return value if isinstance(value, dict) else UserError("not a JSON object")


def _json(lines: Lines) -> RawRecords:
    """Read one JSON document; or JSON lines, which often have this ending too."""
    numbered = list(lines)
    texts = []
    for _, line in numbered:
        if isinstance(line, UserError):
            raise line
        texts.append(line)
    text = "".join(texts)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        if sum(bool(line.strip()) for line in texts) > 1 and text.lstrip().startswith("{"):
            yield from _json_lines(iter(numbered))
            return
        raise UserError(f"not JSON ({error})") from None
    if isinstance(value, dict):
        value = list(_squad(value["data"])) if isinstance(value.get("data"), list) else [value]
    if not isinstance(value, list):
        raise UserError("holds neither a list of records nor JSON lines")
    for number, row in enumerate(value, start=1):
        yield number, row if isinstance(row, dict) else UserError("not a JSON object")


def _squad(articles: list[Any]) -> Iterator[Any]:
    """Flatten SQuAD's articles, paragraphs and questions; other objects are records already."""
    for article in articles:
        if not isinstance(article, dict) or not isinstance(article.get("paragraphs"), list):
            yield article
            continue
        for paragraph in article["paragraphs"]:
            for question in paragraph.get("qas", []):
                yield {"context": paragraph.get("context"), **question}


_LINES: dict[Format, Callable[[Lines], RawRecords]] = {
    "jsonl": _json_lines,
    "json": _json,
    "csv": tables.comma_separated,
    "tsv": tables.tab_separated,
    "conll": tables.conll,
}


def _named(values: Mapping[str, Any], declared: LabelNames) -> dict[str, Any]:
    return {
        column: _name(value, declared[column]) if column in declared else value
        for column, value in values.items()
    }


def _name(value: Any, names: tuple[str, ...]) -> Any:
    """Replace numbers by names; -1 is no label."""
    if isinstance(value, list):
        return [_name(v, names) for v in value]
    if not isinstance(value, int) or value == -1:
        return None if value == -1 else value
    if not 0 <= value < len(names):
        raise UserError(f"label {value} is none of the {len(names)} that the file declares")
    return names[value]

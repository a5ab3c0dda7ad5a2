"""Read labelled records: JSON lines, CSV, CoNLL, Parquet, Arrow and folders of `datasets`."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io import standard_input
from modernbert_jax.io.json_reader import check_texts, read_json
from modernbert_jax.io.paths import ENDINGS, Format, file_type, matches

from ..corpus.sources import Source, fetched, line_records
from ..corpus.sources.find import from_standard_input
from ..corpus.sources.line_records import Lines, RawRecords
from . import arrow, conll
from .records import LabelNames, Problems, Record, Records


def read(paths: Sequence[str | Path]) -> Records:
    """Read all records of files, in the order of the paths.

    `.jsonl`, `.ndjson`, `.csv`, `.tsv`, `.json` (a list of objects, JSON lines, or SQuAD's
    nesting) and `.conll` (words and tags in columns), each also `.gz`, `.zst`, `.bz2` and `.xz`;
    `.parquet`, `.arrow`, and folders that `Dataset.save_to_disk` wrote. If a file declares the
    names of a column's numbers (`ClassLabel`), values are the names.

    Args:
        paths: Files, folders, patterns of these, URLs of files that fsspec reads, or `-`, which is
            standard input with JSON lines.

    Raises:
        UserError: a path that matches nothing; or the first damaged records, in one line.
    """
    problems = Problems()
    names: LabelNames = {}
    records = list(stream(paths, problems, names))
    problems.check()
    return Records(records, names)


def stream(
    paths: Sequence[str | Path], problems: Problems, names: LabelNames | None = None
) -> Iterator[Record]:
    """Yield the records of files as `read` does, one at a time, without the damaged ones.

    Args:
        paths: as those of `read`.
        problems: collects damaged records and files.
        names: receives the label names that files declare, which then replace numbers. None leaves
            numbers as they are.

    Raises:
        UserError: a path that matches nothing.
    """
    for path in _files(paths):
        with problems.at(path):
            rows, declared = _open(path)
            declared = {} if names is None else declared
            for column, labels in declared.items():
                if names is not None and names.setdefault(column, labels) != labels:
                    raise UserError(
                        f"declares labels of {column!r} that differ from those of another file"
                    )
            empty = True
            for number, values in rows:
                empty, place = False, f"{path}:{number}"
                with problems.at(place):
                    if isinstance(values, UserError):
                        raise values
                    check_texts(values)
                    yield Record(place, _named(values, declared))
            if empty:
                raise UserError("holds no records")


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
        splits = read_json(Path(path) / "dataset_dict.json").get("splits")
        splits = splits if isinstance(splits, list) else []
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
    format = file_type(path).format
    if format in ("parquet", "arrow"):
        return arrow.file(path, format)
    if format not in _LINES:
        known = ", ".join(e for e, f in ENDINGS.items() if f in (*_LINES, "parquet", "arrow"))
        raise UserError(f"{Path(path).suffix or 'no ending'} is not read; known: {known}")
    return _LINES[format](lines(path)), {}


def lines(path: str) -> Lines:
    """Yield the lines of a local or remote file, perhaps a compressed one, with their numbers.

    Raises:
        UserError: the file cannot be read to its end.
    """
    compression = file_type(path).compression
    source = Source(path=path, bytes=0, format="unread")
    if path == standard_input.NAME:
        source = from_standard_input()
    with fetched(source) as local:
        yield from line_records.numbered_lines(local, compression)


def _json(lines: Lines) -> RawRecords:
    return line_records.json_document(lines, _records_of)


def _records_of(value: dict[str, Any]) -> list[Any]:
    """The records of a JSON document: those of SQuAD's nesting, or the object itself."""
    return list(_squad(value["data"])) if isinstance(value.get("data"), list) else [value]


def _squad(articles: list[Any]) -> Iterator[Any]:
    """Flatten SQuAD's articles, paragraphs and questions; other objects are records already."""
    for article in articles:
        if not isinstance(article, dict) or not isinstance(article.get("paragraphs"), list):
            yield article
            continue
        for paragraph in article["paragraphs"]:
            fields = paragraph if isinstance(paragraph, dict) else {}
            questions = fields.get("qas", [])
            if not fields or not isinstance(questions, list):
                yield UserError("a paragraph must be an object with context and a list qas")
                continue
            for question in questions:
                known = isinstance(question, dict)
                yield {"context": fields.get("context"), **question} if known else question


_LINES: dict[Format, Callable[[Lines], RawRecords]] = {
    "jsonl": line_records.json_lines,
    "json": _json,
    "csv": line_records.comma_separated,
    "tsv": line_records.tab_separated,
    "conll": conll.read,
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

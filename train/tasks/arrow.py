"""Records of Parquet and Arrow files and saved datasets, with the label names they declare."""

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError, first_line
from modernbert_jax.io.json_reader import parse_json, read_json
from modernbert_jax.io.text import check_name

from ..corpus.sources import Source, fetched
from ..corpus.sources.line_records import RawRecords
from ..corpus.sources.parquet import checked
from .records import LabelNames


def file(path: str, format: str) -> tuple[RawRecords, LabelNames]:
    """Read a local or remote file; `format` is "parquet", or "arrow" (file or stream)."""
    tables = _tables(path, _parquet if format == "parquet" else _arrow)
    first = list(itertools.islice(tables, 1))
    names = _declared(first[0].schema.metadata) if first else {}
    return _rows(itertools.chain(first, tables)), names


def _tables(path: str, batches: Callable[[Path], Iterator[Any]]) -> Iterator[Any]:
    """The record batches of a local or remote file, one at a time."""
    with fetched(Source(path=path, bytes=0, format="unread")) as local:
        yield from _guarded(batches, local, "")


def count(path: Path, format: str) -> int:
    """Number of rows of a local file. Raises `UserError`."""
    import pyarrow.parquet

    if format == "parquet":
        with _reasons(""), pyarrow.parquet.ParquetFile(path) as opened:
            return opened.metadata.num_rows
    return sum(len(batch) for batch in _guarded(_arrow, path, ""))


def rows_from(path: Path, format: str, first: int) -> Iterator[tuple[int, Any]]:
    """Yield the rows of a local file from one on, with their numbers from 0. Raises `UserError`."""
    if format == "parquet":
        number, batches = _groups_from(path, first)
    else:
        number, batches = 0, _guarded(_arrow, path, "")
    for batch in batches:
        skipped = min(max(first - number, 0), len(batch))
        rest = batch.slice(skipped)
        if len(rest):
            yield from enumerate((row for _, row in _rows(iter([rest]))), start=number + skipped)
        number += len(batch)


def _groups_from(path: Path, first: int) -> tuple[int, Iterator[Any]]:
    """Number of the first row of a Parquet file's row group with a row, and batches from there."""
    import pyarrow.parquet

    with _reasons(""), pyarrow.parquet.ParquetFile(path) as opened:
        sizes = [opened.metadata.row_group(i).num_rows for i in range(opened.num_row_groups)]
    group = 0
    while group < len(sizes) and sum(sizes[: group + 1]) <= first:
        group += 1
    number = sum(sizes[:group])
    return number, _guarded(lambda p: _parquet(p, range(group, len(sizes))), path, "")


def folder(path: Path) -> tuple[RawRecords, LabelNames]:
    """Read a folder that `Dataset.save_to_disk` wrote."""
    state = read_json(path / "state.json")
    if state.get("_indices_data_files"):
        raise UserError("has its rows in another order; save it again after flatten_indices()")
    entries = state.get("_data_files")
    entries = entries if isinstance(entries, list) else []
    files = [e.get("filename") if isinstance(e, Mapping) else None for e in entries]
    if not files or any(not isinstance(f, str) or Path(f).name != f for f in files):
        raise UserError("state.json: _data_files must name the files of the folder")
    names = [check_name(name, "state.json: _data_files") for name in files]
    info = read_json(path / "dataset_info.json") if (path / "dataset_info.json").exists() else {}
    rows = _rows(batch for f in names for batch in _guarded(_arrow, path / f, f"{f}: "))
    return rows, label_names(info.get("features"))


def label_names(features: Any) -> LabelNames:
    """Names of each column of class labels, or of lists of them, from `datasets` features."""
    declared = {}
    for column, feature in features.items() if isinstance(features, Mapping) else ():
        while True:
            if isinstance(feature, list) and len(feature) == 1:
                feature = feature[0]
            elif isinstance(feature, Mapping) and "feature" in feature:
                feature = feature["feature"]
            else:
                break
        if isinstance(feature, Mapping) and feature.get("_type") == "ClassLabel":
            names = feature.get("names")
            if isinstance(names, list) and all(isinstance(n, str) for n in names):
                declared[column] = tuple(names)
    return declared


def _declared(metadata: Mapping[bytes, bytes] | None) -> LabelNames:
    """Label names from the metadata that `datasets` adds to a schema."""
    try:
        content = parse_json((metadata or {}).get(b"huggingface", b"{}"))
        return label_names(content["info"]["features"])
    except (ValueError, KeyError, TypeError):
        return {}


def _guarded(batches: Callable[[Path], Iterator[Any]], path: Path, name: str) -> Iterator[Any]:
    with _reasons(name):
        yield from map(checked, batches(path))


@contextlib.contextmanager
def _reasons(name: str) -> Iterator[None]:
    """Turn errors of reading a file into a `UserError` that begins with a name."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}damaged or unreadable ({first_line(error)})") from None


def _parquet(path: Path, groups: Iterable[int] | None = None) -> Iterator[Any]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as opened:
        for batch in opened.iter_batches(row_groups=None if groups is None else [*groups]):
            yield batch.replace_schema_metadata(opened.schema_arrow.metadata)


def _arrow(path: Path) -> Iterator[Any]:
    import pyarrow

    with pyarrow.OSFile(str(path)) as opened:
        try:
            reader = pyarrow.ipc.open_file(opened)
        except pyarrow.ArrowInvalid:
            opened.seek(0)
            yield from pyarrow.ipc.open_stream(opened)
            return
        for i in range(reader.num_record_batches):
            yield reader.get_batch(i)


def _rows(batches: Iterator[Any]) -> RawRecords:
    number = 0
    for batch in batches:
        try:
            values = batch.to_pylist()
        except UnicodeDecodeError:
            raise UserError(f"not UTF-8 in one of the rows after {number:,}") from None
        for row in values:
            number += 1
            yield number, row

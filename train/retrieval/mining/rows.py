"""The rows of a mined data set, in the formats that training reads, and files of them."""

import contextlib
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import whole_file

Format = Literal["triplet", "n-tuple", "labeled-pair", "labeled-list"]
"""Layout of a row:

- triplet: query, positive, negative; a row for each positive with each negative
- n-tuple: query, positive, negative_1, ..., negative_n; a row for each positive with all negatives
- labeled-pair: query, document, label; a row for each positive and each negative
- labeled-list: query, documents, labels; a row for each query
"""

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
"""Endings of the files that are written."""

Row = dict[str, Any]

_BATCH = 4096


class Scored(NamedTuple):
    """A document of a query."""

    text: str
    score: float
    relevant: bool


def rows(
    format: Format, with_scores: bool, query: str, positives: list[Scored], negatives: list[Scored]
) -> Iterator[Row]:
    """Yield the rows of a query.

    Args:
        format: layout of the rows.
        with_scores: whether they have the scores of the documents: `scores`, or `score` in place of
            `label`, or `scores` in place of `labels`.
        query: its text.
        positives: of the query; empty in lists that rank positives among the others.
        negatives: chosen documents, best first.
    """
    if format == "labeled-pair":
        for document in [*positives, *negatives]:
            value = {"score": document.score} if with_scores else {"label": int(document.relevant)}
            yield {"query": query, "document": document.text, **value}
    elif format == "labeled-list":
        if documents := [*positives, *negatives] if negatives else []:
            texts = {"query": query, "documents": [d.text for d in documents]}
            if with_scores:
                yield texts | {"scores": [d.score for d in documents]}
            else:
                yield texts | {"labels": [int(d.relevant) for d in documents]}
    else:
        groups = [[n] for n in negatives] if format == "triplet" else [negatives]
        for positive in positives:
            for group in groups:
                names = ["negative"] if format == "triplet" else _numbered(len(group))
                texts = {"query": query, "positive": positive.text}
                texts |= {name: n.text for name, n in zip(names, group, strict=True)}
                scores = [positive.score, *(n.score for n in group)]
                yield texts | ({"scores": scores} if with_scores else {})


def check_ending(path: Path) -> None:
    """Raise `UserError` for an ending of a file that is not written."""
    if not path.name.lower().endswith(ENDINGS):
        raise UserError(f"{path}: the ending must be one of {', '.join(ENDINGS)}")


@contextlib.contextmanager
def writer(path: Path) -> Iterator[Callable[[Row], None]]:
    """The function that adds a row to a new file, which appears at the end of the block.

    Equal rows give equal bytes.

    Raises:
        UserError: the ending is not written, or `path` exists or cannot be written.
    """
    check_ending(path)
    with whole_file(path, new=True) as temporary:
        if path.name.lower().endswith(".parquet"):
            with _parquet(temporary) as add:
                yield add
            return
        with _compressed(temporary, path.suffix.lower()) as file:
            yield lambda row: _write(file, row)


def _numbered(count: int) -> list[str]:
    return [f"negative_{i + 1}" for i in range(count)]


def _write(file: BinaryIO, row: Row) -> None:
    file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())


@contextlib.contextmanager
def _compressed(path: Path, ending: str) -> Iterator[BinaryIO]:
    with path.open("wb") as file:
        if ending == ".gz":
            with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as zipped:
                yield zipped  # type: ignore[misc]
        elif ending == ".zst":
            import zstandard

            with zstandard.ZstdCompressor(level=9).stream_writer(file) as zipped:
                yield zipped  # type: ignore[misc]
        else:
            yield file


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Callable[[Row], None]]:
    import pyarrow
    import pyarrow.parquet

    pending: list[Row] = []
    opened: list[Any] = []

    def flush() -> None:
        table = pyarrow.Table.from_pylist(pending, opened[0].schema if opened else None)
        if not opened:
            opened.append(pyarrow.parquet.ParquetWriter(path, table.schema))
        opened[0].write_table(table)
        pending.clear()

    def add(row: Row) -> None:
        pending.append(row)
        if len(pending) >= _BATCH:
            flush()

    try:
        yield add
        if pending:
            flush()
    finally:
        for file in opened:
            file.close()

"""Embeddings of a few texts: inputs of every format, models whose programs are shared, and readers.

Shards are read by pyarrow and numpy alone, as a user reads them.
"""

import csv
import gzip
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import models
import numpy as np
import pyarrow
import pyarrow.parquet
import zstandard

WORDS = " ".join(models.TEXTS[2:]).split()


def texts(count: int, longest: int = 30) -> list[str]:
    """Texts of many lengths."""
    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in range(count)]


def records(count: int) -> list[dict[str, str]]:
    """Records with an id and a text."""
    return [{"_id": f"d{i}", "text": text} for i, text in enumerate(texts(count))]


def write_jsonl(path: Path, rows: Sequence[Any], blank: int = 0) -> Path:
    """Write JSON lines, with a blank line after every `blank` of them; compressed by the ending."""
    lines = [json.dumps(row) if not isinstance(row, str) else row for row in rows]
    if blank:
        lines = [x for i, line in enumerate(lines, 1) for x in ([line, ""][: 2 - bool(i % blank)])]
    content = "".join(f"{line}\n" for line in lines).encode()
    compress = {".gz": gzip.compress, ".zst": zstandard.compress}.get(path.suffix, bytes)
    path.write_bytes(compress(content))
    return path


def write_table(path: Path, rows: Sequence[dict[str, str]], batch: int = 7) -> Path:
    """Write Parquet, Arrow or CSV, in batches of so many rows."""
    table = pyarrow.Table.from_pylist(list(rows))
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path, row_group_size=batch)
    elif path.suffix == ".arrow":
        with pyarrow.ipc.new_file(path, table.schema) as file:
            file.write_table(table, max_chunksize=batch)
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def digests(folder: Path) -> dict[str, str]:
    """Hashes of all files, also of hidden ones."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def read(folder: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """Ids and columns of all shards, as they are stored; bfloat16 as such."""
    manifest = json.loads((folder / "manifest.json").read_text())
    settings = manifest["settings"]
    ids: list[str] = []
    columns: dict[str, list[np.ndarray]] = {}
    for number in range(manifest["shards"]):
        name = f"shard-{number:05d}"
        if settings["format"] == "npy":
            ids += json.loads((folder / f"{name}.ids.json").read_text())
            found = {
                path.name.split(".")[1]: np.load(path) for path in folder.glob(f"{name}.*.npy")
            }
        else:
            path = folder / f"{name}.{settings['format']}"
            parquet = settings["format"] == "parquet"
            table = (
                pyarrow.parquet.read_table(path)
                if parquet
                else pyarrow.ipc.open_file(path).read_all()
            )
            ids += table["id"].to_pylist()
            found = {c: _flat(table[c].combine_chunks()) for c in table.column_names if c != "id"}
        for column, array in found.items():
            columns.setdefault(column, []).append(array)
    arrays = {column: np.concatenate(parts) for column, parts in columns.items()}
    if settings["dtype"] == "bfloat16":
        arrays = {c: a.view(ml_dtypes.bfloat16) if c[0] == "v" else a for c, a in arrays.items()}
    return ids, arrays


def _flat(column: Any) -> np.ndarray:
    """A column as an array, lists of fixed size as rows, other lists one after another."""
    if isinstance(column, pyarrow.ChunkedArray):
        column = pyarrow.concat_arrays(column.chunks) if column.num_chunks else column
    if pyarrow.types.is_large_list(column.type) or pyarrow.types.is_list(column.type):
        column = column.flatten()
    if pyarrow.types.is_fixed_size_list(column.type):
        return column.flatten().to_numpy(zero_copy_only=False).reshape(-1, column.type.list_size)
    return column.to_numpy(zero_copy_only=False)

"""The files of a shard: Parquet, Arrow, or arrays of .npy beside ids; written in bounded memory.

A row of Parquet and Arrow is a text:

    id, vector                     a fixed-size list of numbers
    id, length, vectors            of late interaction: a list of vectors, one for each token
    id, length, indices, values    of sparse models: ids of the vocabulary with their weights

Of .npy there is a file for each column, and lists follow one another without gaps: `length` says
how many belong to each text. Ids are a JSON list.
"""

import abc
import contextlib
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from modernbert_jax.io.store import Store

from ..retrieval.blocks import Block, arrays_of
from .config import Format
from .numbers import BITS, Numbers

_METADATA = "modernbert-jax"
"""Key of the facts in the schema of Parquet and Arrow files, as JSON."""


@dataclasses.dataclass(frozen=True)
class Columns:
    """What is stored of each text, beside its id."""

    kind: str
    """"embedding", "late-interaction" or "sparse"."""
    dims: int
    """Numbers of a vector; ids of the vocabulary for sparse models."""
    numbers: Numbers

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        if self.kind == "sparse":
            return ("length", "indices", "values")
        return ("length", "vectors") if self.kind == "late-interaction" else ("vector",)

    def arrays(self, block: Block) -> dict[str, np.ndarray]:
        """The columns of some texts, at least one, with lists that follow one another."""
        parts = arrays_of(block)
        if self.kind == "embedding":
            return {"vector": self.numbers.stored(parts["vectors"])}
        length = parts["lengths"].astype(np.int32)
        if self.kind == "late-interaction":
            return {"length": length, "vectors": self.numbers.stored(parts["0"])}
        values = self.numbers.stored(parts["1"])
        return {"length": length, "indices": parts["0"].astype(np.int32), "values": values}

    def empty(self) -> dict[str, np.ndarray]:
        """The columns of no texts."""
        kept = BITS[self.numbers.dtype]
        vectors: np.ndarray = np.zeros((0, self.numbers.width(self.dims)), kept)
        own: dict[str, np.ndarray]
        own = {"length": np.zeros(0, np.int32), "indices": np.zeros(0, np.int32)}
        own |= {"vector": vectors, "vectors": vectors, "values": np.zeros(0, kept)}
        return {name: own[name] for name in self.names}


class ShardWriter(abc.ABC):
    """Writes the files of a shard, some texts at a time."""

    @classmethod
    @abc.abstractmethod
    def endings(cls, columns: Columns) -> list[str]:
        """Endings of the names of the files."""

    @abc.abstractmethod
    def __init__(self, paths: dict[str, Path], columns: Columns):
        """Write to a path for each ending."""

    @abc.abstractmethod
    def add(self, ids: Sequence[str], arrays: dict[str, np.ndarray]) -> None:
        """Add some texts, with their columns."""

    @abc.abstractmethod
    def close(self) -> None:
        """Complete the files."""


class _TableWriter(ShardWriter):
    """A file with a table."""

    ending = ""

    @classmethod
    def endings(cls, columns: Columns) -> list[str]:
        return [cls.ending]

    def __init__(self, paths: dict[str, Path], columns: Columns):
        import pyarrow

        facts = {"kind": columns.kind, "dims": columns.dims, "dtype": columns.numbers.dtype}
        self._columns = columns
        table = self._table([], columns.empty())
        schema = table.schema.with_metadata({_METADATA: json.dumps(facts)})
        self._file = pyarrow.OSFile(str(paths[self.ending]), "wb")
        self._writer = self._open(schema)

    @abc.abstractmethod
    def _open(self, schema: Any) -> Any:
        """Begin a file with a schema."""

    def add(self, ids: Sequence[str], arrays: dict[str, np.ndarray]) -> None:
        self._writer.write_table(self._table(ids, arrays))

    def close(self) -> None:
        self._writer.close()
        self._file.close()

    def _table(self, ids: Sequence[str], arrays: dict[str, np.ndarray]) -> Any:
        import pyarrow

        columns = {"id": pyarrow.array(ids, pyarrow.large_string())}
        for name, array in arrays.items():
            flat = pyarrow.array(array.reshape(-1))
            if array.ndim == 2:
                flat = pyarrow.FixedSizeListArray.from_arrays(flat, array.shape[1])
            if name not in ("length", "vector"):
                ends = np.cumsum(arrays["length"], dtype=np.int64)
                offsets = pyarrow.array(np.concatenate([np.zeros(1, np.int64), ends]))
                flat = pyarrow.LargeListArray.from_arrays(offsets, flat)
            columns[name] = flat
        return pyarrow.table(columns)


class _Parquet(_TableWriter):
    ending = ".parquet"

    def _open(self, schema: Any) -> Any:
        import pyarrow.parquet

        # Vectors neither repeat nor compress.
        options = {"compression": "none", "use_dictionary": False, "write_statistics": False}
        return pyarrow.parquet.ParquetWriter(self._file, schema, **options)


class _Arrow(_TableWriter):
    ending = ".arrow"

    def _open(self, schema: Any) -> Any:
        import pyarrow

        return pyarrow.ipc.new_file(self._file, schema)


class _Npy(ShardWriter):
    """A .npy file for each column, whose size is known at the end, and a JSON file of ids."""

    @classmethod
    def endings(cls, columns: Columns) -> list[str]:
        return [".ids.json", *(f".{name}.npy" for name in columns.names)]

    def __init__(self, paths: dict[str, Path], columns: Columns):
        self._paths, self._ids = paths, list[str]()
        self._empty = columns.empty()
        self._rows = dict.fromkeys(self._empty, 0)
        self._files: dict[str, BinaryIO] = {}
        for name in self._empty:
            self._files[name] = paths[f".{name}.npy"].open("wb")
            self._write_header(name)

    def add(self, ids: Sequence[str], arrays: dict[str, np.ndarray]) -> None:
        self._ids += ids
        for name, array in arrays.items():
            self._rows[name] += len(array)
            self._files[name].write(np.ascontiguousarray(array).data)

    def close(self) -> None:
        for name, file in self._files.items():
            file.seek(0)
            self._write_header(name)
            file.close()
        self._paths[".ids.json"].write_text(json.dumps(self._ids, ensure_ascii=False), "utf-8")

    def _write_header(self, name: str) -> None:
        """Write the header of a file, whose size does not depend on the number of rows."""
        empty = self._empty[name]
        header = {
            "descr": np.lib.format.dtype_to_descr(empty.dtype),
            "fortran_order": False,
            "shape": (self._rows[name], *empty.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(self._files[name], header)


WRITERS: dict[Format, type[ShardWriter]] = {"parquet": _Parquet, "arrow": _Arrow, "npy": _Npy}
"""How shards of a format are written."""


@contextlib.contextmanager
def written(
    store: Store, name: str, format: Format, columns: Columns
) -> Iterator[tuple[ShardWriter, dict[str, Path]]]:
    """A writer of a shard, whose files appear whole at the end of the block.

    Returns:
        The writer, and the paths of the files by name, which are complete after `close`.
    """
    kind = WRITERS[format]
    with contextlib.ExitStack() as stack:
        paths = {
            ending: stack.enter_context(store.writing(f"{name}{ending}"))
            for ending in kind.endings(columns)
        }
        yield kind(paths, columns), {f"{name}{ending}": path for ending, path in paths.items()}

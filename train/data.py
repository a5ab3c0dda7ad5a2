"""Batches of packed rows from a prepared folder.

The order is a seeded shuffle of all rows; batch s is rows s*B to (s+1)*B of it, for any number
of hosts and after any restart. The only state is how many rows have been read.
"""

from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
from grain import experimental

from modernbert_jax.errors import UserError
from modernbert_jax.packing import Rows, layout
from modernbert_jax.tokenizer import Tokenizer

from . import manifest
from .records import read_row

READ_AHEAD = 4
"""Batches that are read before they are asked for."""


class Prepared:
    """A prepared folder: its manifest, its tokenizer, and its rows by split and length."""

    def __init__(self, folder: str | Path):
        """Raises `UserError` if the folder is not a whole prepared one."""
        self.folder = Path(folder)
        self.manifest = manifest.read(self.folder)
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer")

    def lengths(self) -> list[int]:
        """Row lengths that were prepared."""
        return self.manifest.row_lengths

    def rows(self, split: str, length: int) -> grain.MapDataset:
        """Rows in the order of the files. Raises `UserError` if this length was not prepared."""
        if length not in self.lengths():
            raise UserError(
                f"{self.folder}: has no rows of length {length}, only of"
                f" {', '.join(map(str, self.lengths()))}; prepare it with --length {length}"
            )
        shards = [
            s for c in self.manifest.components for s in self.manifest.shards(c, length, split)
        ]
        if not shards:
            raise UserError(f"{self.folder}: has no {split} rows of length {length}")
        dtype = np.dtype(self.manifest.dtype)
        pad_id = self.tokenizer.pad_id

        def decode(record: bytes) -> dict[str, np.ndarray]:
            ids, lengths = read_row(record, dtype)
            row = layout([ids], [lengths], length, pad_id)
            return {name: field[0] for name, field in row._asdict().items()}

        source = grain.sources.ArrayRecordDataSource([str(self.folder / s.file) for s in shards])
        return grain.MapDataset.source(source).map(decode)

    def batches(self, split: str, length: int, size: int, seed: int, start: int = 0) -> "Batches":
        """Shuffled batches without end, from row number `start` of the shuffled order."""
        rows = self.rows(split, length)
        return Batches(rows.seed(seed).shuffle().repeat(), length, size, start)

    def validation(self, length: int, size: int, most: int) -> list[Rows]:
        """The first `most` validation rows in batches, the last filled up with padding.

        Empty where nothing was kept for validation.
        """
        names = self.manifest.components
        if not any(self.manifest.shards(name, length, "validation") for name in names):
            return []
        dataset = self.rows("validation", length)
        rows = [Rows(**dataset[i]) for i in range(min(len(dataset), most))]
        rows += [Rows(*map(np.zeros_like, rows[0]))] * (-len(rows) % size)
        groups = (rows[i : i + size] for i in range(0, len(rows), size))
        return [Rows(*map(np.stack, zip(*group, strict=True))) for group in groups]


class Batches:
    """An iterator over `Rows` of numpy arrays, this process's part of each global batch."""

    def __init__(self, rows: grain.MapDataset, length: int, size: int, start: int):
        self._shape = (size // jax.process_count(), length)
        shards = grain.sharding.ShardOptions(jax.process_index(), jax.process_count())
        options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=READ_AHEAD)
        dataset = experimental.ElasticIterator(rows, size, shards, read_options=options)
        self._iterator = iter(dataset)
        self._iterator.set_state({"global_next_index": start})

    @property
    def position(self) -> int:
        """Rows handed out so far: where a later run starts."""
        return self._iterator.get_state()["global_next_index"]

    def shape(self) -> Rows:
        """What a batch looks like, for compiling."""
        return Rows(*(jax.ShapeDtypeStruct(self._shape, np.int32) for _ in Rows._fields))

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Rows:
        fields: dict[str, Any] = next(self._iterator)
        return Rows(**fields)

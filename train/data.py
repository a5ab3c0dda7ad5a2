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
from modernbert_jax.files import read_json
from modernbert_jax.packing import Rows, layout
from modernbert_jax.tokenizer import Tokenizer

from .prepare import FORMAT, read_row

READ_AHEAD = 4
"""Batches that are read before they are asked for."""


class Prepared:
    """A prepared folder: its manifest, its tokenizer, and its rows by split and length."""

    def __init__(self, folder: str | Path):
        """Raises `UserError` if the folder is not a whole prepared one."""
        self.folder = Path(folder)
        if not (self.folder / "manifest.json").is_file():
            raise UserError(
                f"{self.folder}: not a prepared corpus (no manifest.json); make one with"
                " `modernbert-jax prepare`"
            )
        self.manifest = read_json(self.folder / "manifest.json")
        if self.manifest.get("format") != FORMAT:
            raise UserError(
                f"{self.folder}/manifest.json: format is {self.manifest.get('format')!r}; this"
                f" version reads {FORMAT}; prepare the corpus again"
            )
        self.tokenizer = Tokenizer.load(self.folder)

    def lengths(self) -> list[int]:
        """Row lengths that were prepared."""
        return sorted(int(length) for length in self.manifest["lengths"])

    def rows(self, split: str, length: int) -> grain.MapDataset:
        """Rows in the order of the files. Raises `UserError` if this length was not prepared."""
        if length not in self.lengths():
            raise UserError(
                f"{self.folder}: has no rows of length {length}, only of"
                f" {', '.join(map(str, self.lengths()))}; prepare it with --length {length}"
            )
        files = sorted((self.folder / f"length-{length}").glob(f"{split}-*.arrayrecord"))
        if not files:
            raise UserError(f"{self.folder}/length-{length}: has no {split} rows")
        dtype = np.dtype(self.manifest["dtype"])
        pad_id = self.tokenizer.pad_id

        def decode(record: bytes) -> dict[str, np.ndarray]:
            ids, lengths = read_row(record, dtype)
            row = layout([ids], [lengths], length, pad_id)
            return {name: field[0] for name, field in row._asdict().items()}

        source = grain.sources.ArrayRecordDataSource([str(f) for f in files])
        return grain.MapDataset.source(source).map(decode)

    def batches(self, split: str, length: int, size: int, seed: int, start: int = 0) -> "Batches":
        """Shuffled batches without end, from row number `start` of the shuffled order."""
        rows = self.rows(split, length)
        return Batches(rows.seed(seed).shuffle().repeat(), length, size, start)

    def validation(self, length: int, size: int, most: int) -> list[Rows]:
        """The first `most` validation rows in batches, the last filled up with padding.

        Empty where nothing was kept for validation.
        """
        if "validation" not in self.manifest["lengths"][str(length)]:
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

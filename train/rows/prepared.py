"""Batches of packed rows from a prepared folder.

Every component has a seeded shuffle of all its rows; a mixture says which component comes when;
batch s is rows s*B to (s+1)*B of that order, and process i of n takes the i-th n-th of it. So a
batch is the same for any number of processes and threads, and after any restart: the only state
is how many rows have been read.
"""

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import grain
import jax
import numpy as np
from grain import experimental

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.store import is_remote
from modernbert_jax.packing import Rows, layout
from modernbert_jax.tokenizer import Tokenizer

from . import manifest as manifests
from .mixture import Order, Share
from .records import read_row
from .row_files import HASHED, RowFiles, check

READ_AHEAD = 4
"""Batches that are read before they are asked for."""

ON_DEVICE = 2
"""Batches that are moved to the device before they are asked for."""

Host = grain.sharding.ShardOptions
"""Which process this is, and of how many."""


class RowBatch(NamedTuple):
    """This process's part of a batch, and what it holds."""

    rows: Rows
    tokens: np.ndarray
    """Tokens in each row, int [B]."""
    components: np.ndarray
    """Component of each row, int [B]."""


class Prepared:
    """A prepared folder: its manifest, its tokenizer, and its rows by component and length."""

    def __init__(self, folder: str | Path):
        """Raises `UserError` if the folder is not a whole prepared one."""
        if is_remote(folder):
            raise UserError(
                f"{folder}: rows are read at random from a file system; mount the bucket, or copy"
                " the folder"
            )
        self.folder = Path(folder)
        self.manifest = manifests.read(folder)
        self.tokenizer = Tokenizer.load(self.folder / "tokenizer")

    def lengths(self) -> list[int]:
        """Row lengths that were prepared."""
        return self.manifest.row_lengths

    def components(self, length: int) -> list[str]:
        """Names of the components with training rows of a length, sorted.

        Raises `UserError` if this length was not prepared.
        """
        if length not in self.lengths():
            raise UserError(
                f"{self.folder}: has no rows of length {length}, only of"
                f" {', '.join(map(str, self.lengths()))}; prepare it with --length {length}"
            )
        return [c for c in sorted(self.manifest.components) if self._shards("train", length, c)]

    def rows(
        self, split: str, length: int, component: str | None = None
    ) -> grain.MapDataset[dict[str, np.ndarray]]:
        """Rows in the order of the files, each a dictionary of the fields of `Rows`.

        Of a component, or of all of them one after another. Raises `UserError` if there are none.
        """
        decode = self._decoder(length)
        return self._records(split, length, component).map(
            lambda record: {name: field[0] for name, field in decode([record])[0]._asdict().items()}
        )

    def order(
        self,
        length: int,
        mixture: Mapping[str, float] | None = None,
        epochs: Mapping[str, float] | None = None,
    ) -> Order:
        """Which component is read when.

        Args:
            length: Tokens in a row.
            mixture: Weights of the components to read, in tokens. By default the manifest's.
            epochs: Times that components may be read, if not as often as the manifest says.

        Raises:
            UserError: a length or a component that was not prepared.
        """
        known, epochs = self.components(length), epochs or {}
        weights = mixture or {c: self.manifest.components[c].weight for c in known}
        for name in (*weights, *epochs):
            if name not in known:
                raise UserError(
                    f"{self.folder}: has no component {name!r} of length {length};"
                    f" {did_you_mean(name, known)}"
                )
        shares = {}
        for name, weight in weights.items():
            component = self.manifest.components[name]
            made = component.lengths[str(length)]["train"]
            often = epochs.get(name, component.epochs)
            shares[name] = Share(rows=made.rows, tokens=made.tokens, weight=weight, epochs=often)
        return Order({name: share for name, share in shares.items() if share.weight != 0})

    def batches(
        self,
        length: int,
        size: int,
        seed: int,
        start: int = 0,
        *,
        order: Order | None = None,
        host: Host | None = None,
        threads: int = 2,
        sharding: jax.sharding.Sharding | None = None,
    ) -> "Batches":
        """Shuffled batches from row number `start` of the shuffled order.

        Args:
            length: Tokens in a row.
            size: Rows in a batch, over all processes.
            seed: Of the shuffle.
            start: Rows read before; where another run stopped.
            order: The mixture; by default the manifest's.
            host: Which part of each batch to read; by default what this process's devices hold.
            threads: That read ahead; batches do not depend on them.
            sharding: How a batch's arrays [size, length] lie on the devices of all processes.

        Raises:
            UserError: rows that were not prepared, or a size that the processes cannot share.
        """
        host = host or (Host(0, 1) if sharding is None else _host(sharding, (size, length)))
        if size % host.shard_count:
            raise UserError(
                f"a batch of {size} rows cannot be shared by {host.shard_count} processes"
            )
        order = order or self.order(length)
        each = [
            self._records("train", length, name)
            .shuffle(seed=zlib.crc32(f"{seed} {name}".encode()))
            .repeat()
            for name in order.names
        ]
        rows = grain.MapDataset.select_from_datasets(each, order)
        parts = rows[start:].batch(
            size // host.shard_count, drop_remainder=True, batch_fn=self._decoder(length)
        )[host.shard_index :: host.shard_count]
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=READ_AHEAD)
        put = functools.partial(place, size=size, host=host, sharding=sharding)
        ready = parts.to_iter_dataset(options).map(lambda part: (put(part[0]), part[1]))
        ready = experimental.ThreadPrefetchIterDataset(ready, prefetch_buffer_size=ON_DEVICE)
        return Batches(iter(ready), order, length, size, start, host, sharding)

    def validation(
        self, length: int, size: int, most: int, component: str = manifests.DEFAULT
    ) -> list[Rows]:
        """The first `most` validation rows in batches, the last filled up with padding.

        Empty where nothing was kept for validation.
        """
        if not self._shards("validation", length, component):
            return []
        dataset = self.rows("validation", length, component)
        rows = [Rows(**dataset[i]) for i in range(min(len(dataset), most))]
        rows += [Rows(*map(np.zeros_like, rows[0]))] * (-len(rows) % size)
        groups = (rows[i : i + size] for i in range(0, len(rows), size))
        return [Rows(*map(np.stack, zip(*group, strict=True))) for group in groups]

    def check(self, lengths: Sequence[int], hashed: int = HASHED) -> None:
        """Compares the files of some lengths with the manifest. `UserError` names a bad one.

        Sizes always; checksums if the files have up to `hashed` bytes together.
        """
        check(
            self.folder,
            [
                shard
                for component in self.manifest.components
                for length in sorted(set(lengths))
                for split in manifests.SPLITS
                for shard in self._shards(split, length, component)
            ],
            hashed,
        )

    def _shards(self, split: str, length: int, component: str) -> Sequence[manifests.Shard]:
        return self.manifest.shards(component, length, split)

    def _records(self, split: str, length: int, component: str | None) -> grain.MapDataset[bytes]:
        known, every = self.components(length), list(self.manifest.components)
        if component is not None and component not in every:
            raise UserError(
                f"{self.folder}: has no component {component!r}; {did_you_mean(component, known)}"
            )
        names = every if component is None else [component]
        shards = [shard for name in names for shard in self._shards(split, length, name)]
        if not shards:
            raise UserError(f"{self.folder}: {', '.join(names)} has no {split} rows of {length}")
        return grain.MapDataset.source(RowFiles(self.folder, shards))

    def _decoder(self, length: int) -> Callable[[Sequence[bytes]], tuple[Rows, np.ndarray]]:
        """Makes rows of records; also the tokens in each."""
        dtype, pad_id = np.dtype(self.manifest.dtype), self.tokenizer.pad_id

        def decode(records: Sequence[bytes]) -> tuple[Rows, np.ndarray]:
            ids, lengths = zip(*(read_row(record, dtype) for record in records), strict=True)
            return layout(ids, lengths, length, pad_id), np.array([len(i) for i in ids])

        return decode


class Batches:
    """An iterator over batches, read and moved to the device ahead of time."""

    def __init__(
        self,
        parts: grain.DatasetIterator,
        order: Order,
        length: int,
        size: int,
        start: int,
        host: Host,
        sharding: jax.sharding.Sharding | None,
    ):
        self.order = order
        self.position = start
        """Rows handed out so far, over all processes: where a later run starts."""
        self._parts, self._size, self._host = parts, size, host
        self._each = size // host.shard_count
        one = jax.ShapeDtypeStruct((size, length), np.int32, sharding=sharding)
        self.shape = Rows(*(one for _ in Rows._fields))
        """What a batch's rows look like, for compiling."""

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> RowBatch:
        rows, tokens = next(self._parts)
        first = self.position + self._host.shard_index * self._each
        components = self.order.components(first, first + self._each)
        self.position += self._size
        return RowBatch(rows, tokens, components)

    def contents(self, tokens: np.ndarray, position: int) -> dict[str, float]:
        """For `metrics.jsonl`: each component's share of some tokens, and its epochs so far."""
        names, epochs = self.order.names, self.order.epochs(position)
        shares = tokens / max(tokens.sum(), 1)
        return {
            f"{what}/{name}": float(value)
            for what, values in (("share", shares), ("epochs", epochs))
            for name, value in zip(names, values, strict=True)
        }

    def close(self) -> None:
        """Stops reading ahead."""
        self._parts.close()


def place(rows: Rows, size: int, host: Host, sharding: jax.sharding.Sharding | None) -> Rows:
    """The rows of a batch that one process has read, as arrays over the devices of all.

    Without a sharding they go to jax's default device.
    """
    if sharding is None:
        return jax.device_put(rows)
    first = host.shard_index * (size // host.shard_count)

    def array(x: np.ndarray) -> jax.Array:
        def piece(at: tuple[slice, ...]) -> np.ndarray:
            start, stop, _ = at[0].indices(size)
            return x[start - first : stop - first, at[1]]

        return jax.make_array_from_callback((size, x.shape[1]), sharding, piece)

    return Rows(*map(array, rows))


def _host(sharding: jax.sharding.Sharding, shape: tuple[int, int]) -> Host:
    """The part of a batch that this process's devices hold.

    Raises `UserError` where it is not one stretch of rows, as large as every other process's.
    """
    held = sharding.addressable_devices_indices_map(shape).values()
    spans = {at[0].indices(shape[0])[:2] for at in held}
    first, last = min(spans)[0], max(spans)[1]
    rows = last - first
    if sum(stop - start for start, stop in spans) != rows or first % rows:
        raise UserError(
            "the mesh gives this process rows that do not lie together; let its tensor and context"
            " axes fit into the devices of one process"
        )
    return Host(first // rows, shape[0] // rows)

"""Batches of packed rows, read and moved to the devices ahead of time.

Batch s is rows s*B to (s+1)*B of an order, and process i of n reads the i-th n-th of each batch. A
batch is therefore the same for any number of processes and threads and after any restart: the only
state is how many rows have been read.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import grain
import jax
import numpy as np
from grain import experimental

from modernbert_jax.errors import UserError
from modernbert_jax.packing import Rows
from modernbert_jax.sharding import global_array

from .mixture import Order

READ_AHEAD = 4
"""Batches read in advance."""

ON_DEVICE = 2
"""Batches moved to the devices in advance."""

Host: TypeAlias = grain.sharding.ShardOptions
"""Index of this process, and number of processes."""

Decoder = Callable[[Sequence[bytes]], tuple[Rows, np.ndarray]]
"""Records to rows and the number of tokens in each."""


class RowBatch(NamedTuple):
    """This process's part of a batch."""

    rows: Rows
    tokens: np.ndarray
    """Tokens in each row, int [B]."""
    components: np.ndarray
    """Index of each row's component, int [B]."""


class Batches:
    """An iterator over `RowBatch`, from a position in an order of rows."""

    def __init__(
        self,
        records: grain.MapDataset[bytes],
        decode: Decoder,
        order: Order,
        *,
        length: int,
        size: int,
        start: int = 0,
        host: Host | None = None,
        threads: int = 2,
        sharding: jax.sharding.Sharding | None = None,
    ):
        """Start reading.

        Args:
            records: Rows in the order of training.
            decode: Decodes records of `length` tokens.
            order: Mixture that `records` follows.
            length: Tokens per row.
            size: Rows per batch, over all processes.
            start: Rows read before; `position` where another run stopped.
            host: Part of each batch to read; by default what this process's devices hold.
            threads: Reading threads; batches do not depend on them.
            sharding: Sharding of a batch's arrays [size, length]; None is jax's default device.

        Raises:
            UserError: the processes cannot share a batch of this size.
        """
        host = host or (Host(0, 1) if sharding is None else _host(sharding, (size, length)))
        if size % host.shard_count:
            raise UserError(
                f"a batch of {size} rows cannot be shared by {host.shard_count} processes"
            )
        self.order = order
        self.position = start
        """Rows handed out so far, over all processes: where a later run starts."""
        one = jax.ShapeDtypeStruct((size, length), np.int32, sharding=sharding)
        self.shape = Rows(*(one for _ in Rows._fields))
        """Shapes of a batch's rows, for compiling."""
        self._size, self._host = size, host
        self._each = size // host.shard_count
        parts = records[start:].batch(self._each, drop_remainder=True, batch_fn=decode)
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=READ_AHEAD)
        ready = (
            parts[host.shard_index :: host.shard_count]
            .to_iter_dataset(options)
            .map(lambda part: (place(part[0], size=size, host=host, sharding=sharding), part[1]))
        )
        ready = experimental.ThreadPrefetchIterDataset(ready, prefetch_buffer_size=ON_DEVICE)
        self._parts = iter(ready)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> RowBatch:
        rows, tokens = next(self._parts)
        first = self.position + self._host.shard_index * self._each
        components = self.order.components(first, first + self._each)
        self.position += self._size
        return RowBatch(rows, tokens, components)

    def close(self) -> None:
        """Stop reading ahead."""
        self._parts.close()


def place(rows: Rows, size: int, host: Host, sharding: jax.sharding.Sharding | None) -> Rows:
    """Move the rows that one process has read to arrays [size, T] over the devices of all.

    Without a sharding they go to jax's default device.
    """
    if sharding is None:
        return jax.device_put(rows)
    first = host.shard_index * (size // host.shard_count)
    return Rows(*(global_array(x, sharding, size, first) for x in rows))


def _host(sharding: jax.sharding.Sharding, shape: tuple[int, int]) -> Host:
    """The part of a batch that this process's devices hold.

    Raises `UserError` unless that is one range of rows, as large as every other process's.
    """
    held = sharding.addressable_devices_indices_map(shape).values()
    spans = {at[0].indices(shape[0])[:2] for at in held if at is not None}
    first, last = min(spans)[0], max(spans)[1]
    rows = last - first
    if sum(stop - start for start, stop in spans) != rows or first % rows:
        raise UserError(
            "the mesh gives this process rows that are not consecutive; let its tensor and context"
            " axes fit into the devices of one process"
        )
    return Host(first // rows, shape[0] // rows)

"""Exact deduplication of corpora larger than memory, by sorting digests in buckets.

First each unit stores the sorted digests of its documents. Then each bucket, a range of digests,
compares all units and stores which documents repeat an earlier one. Both steps map a function over
items, on one machine or many, and the result depends on the order of the documents alone.
"""

import hashlib
import io
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from modernbert_jax.io.store import Store, is_remote

from .sources import Document

_DIGEST = np.dtype([("high", "<u8"), ("low", "<u8"), ("document", "<u4")])
_DUPLICATE = np.dtype([("unit", "<u4"), ("document", "<u4")])
BUCKET_DOCUMENTS = 8 << 20
"""Documents compared at a time: about 1 GB while they are sorted."""


class Bucket(NamedTuple):
    """A range of the digests of a component."""

    component: str
    units: tuple[str, ...]
    """Names of all units of the component, in order."""
    number: int
    of: int
    """Number of buckets."""


def digest(document: Document) -> bytes:
    """128-bit hash of a document's content."""
    content = document.encode() if isinstance(document, str) else document.astype("<i8").tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def write_digests(store: Store, component: str, unit: str, documents: Iterable[Document]) -> None:
    """Store the sorted digests of a unit's documents, with the documents' numbers in the unit."""
    halves = np.frombuffer(b"".join(map(digest, documents)), "<u8").reshape(-1, 2)
    table = np.empty(len(halves), _DIGEST)
    table["high"], table["low"] = halves.T
    table["document"] = np.arange(len(halves))
    table.sort(order=("high", "low", "document"))
    _save(store, _digests(component, unit), table)


def count(store: Store, component: str, unit: str) -> int:
    """Number of documents of a unit, from its stored digests."""
    return len(_load(store, _digests(component, unit)))


def find_duplicates(root: str, bucket: Bucket) -> None:
    """Store which documents of a bucket repeat an earlier one, sorted by unit and number."""
    store, (component, units, number, of) = Store(root), bucket
    low, high = (np.uint64(min(b * (2**64 // of), 2**64 - 1)) for b in (number, number + 1))
    ranges = []
    for unit in units:
        table = _load(store, _digests(component, unit))
        start = np.searchsorted(table["high"], low)
        stop = len(table) if number + 1 == of else np.searchsorted(table["high"], high)
        ranges.append(table[start:stop])
    owner = np.repeat(np.arange(len(units)), [len(r) for r in ranges])
    table = np.concatenate(ranges)
    # Of equal digests the first document of the first unit comes first.
    order = np.lexsort((table["document"], owner, table["low"], table["high"]))
    table, owner = table[order], owner[order]
    repeated = np.zeros(len(table), bool)
    repeated[1:] = (table["high"][1:] == table["high"][:-1]) & (
        table["low"][1:] == table["low"][:-1]
    )
    duplicates = np.empty(int(repeated.sum()), _DUPLICATE)
    duplicates["unit"], duplicates["document"] = owner[repeated], table["document"][repeated]
    duplicates.sort(order=("unit", "document"))
    _save(store, f"work/{component}/duplicates-{number:05d}.npy", duplicates)


def duplicates_of(store: Store, component: str, unit: int) -> set[int]:
    """Numbers of a unit's documents that repeat one of this unit or an earlier one."""
    numbers: set[int] = set()
    for name in store.names(f"work/{component}"):
        if name.startswith("duplicates-"):
            table = _load(store, f"work/{component}/{name}")
            start, stop = np.searchsorted(table["unit"], [unit, unit + 1])
            numbers.update(table["document"][start:stop].tolist())
    return numbers


def _digests(component: str, unit: str) -> str:
    return f"work/{component}/digests-{unit}.npy"


def _save(store: Store, name: str, table: np.ndarray) -> None:
    with store.writing(name) as path, open(path, "wb") as file:
        np.save(file, table, allow_pickle=False)


def _load(store: Store, name: str) -> np.ndarray:
    if is_remote(store.root):
        return np.load(io.BytesIO(store.read(name)), allow_pickle=False)
    return np.load(store.path(name), mmap_mode="r", allow_pickle=False)

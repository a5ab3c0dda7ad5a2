"""Exact duplicates, for corpora larger than memory: found by sorting digests in buckets.

First every unit writes its documents' digests, sorted. Then every bucket, a range of digests, is
looked at over all units, and what is not the first of its kind is noted. Both steps map one
function over many items, on one machine or on many, and the result depends on the order of the
documents alone.
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
"""Documents looked at together: about a gigabyte while they are sorted."""


def digest(document: Document) -> bytes:
    """128 bits that only equal documents share."""
    content = document.encode() if isinstance(document, str) else document.astype("<i8").tobytes()
    return hashlib.blake2b(content, digest_size=16).digest()


def write_digests(store: Store, component: str, unit: str, documents: Iterable[Document]) -> None:
    """Writes the digests of a unit's documents, sorted, with their numbers in the unit."""
    digests = b"".join(map(digest, documents))
    halves = np.frombuffer(digests, "<u8").reshape(-1, 2)
    table = np.empty(len(halves), _DIGEST)
    table["high"], table["low"] = halves.T
    table["document"] = np.arange(len(halves))
    table.sort(order=("high", "low", "document"))
    _save(store, f"work/{component}/digests-{unit}.npy", table)


class Bucket(NamedTuple):
    """A range of the digests of a component."""

    component: str
    units: tuple[str, ...]
    """All of the component's, by number."""
    number: int
    of: int


def count(store: Store, component: str, unit: str) -> int:
    """Documents of a unit whose digests were written."""
    return len(_load(store, f"work/{component}/digests-{unit}.npy"))


def find_duplicates(root: str, bucket: Bucket) -> None:
    """Writes the numbers of a bucket's documents that came before, by unit."""
    store, (component, units, number, of) = Store(root), bucket
    low, high = (np.uint64(min(b * (2**64 // of), 2**64 - 1)) for b in (number, number + 1))
    parts = []
    for unit in units:
        table = _load(store, f"work/{component}/digests-{unit}.npy")
        start = np.searchsorted(table["high"], low)
        stop = len(table) if number + 1 == of else np.searchsorted(table["high"], high)
        parts.append(table[start:stop])
    owner = np.repeat(np.arange(len(units)), [len(p) for p in parts])
    table = np.concatenate(parts)
    # Units and their tables are in order, so a stable sort keeps the first of equals in front.
    order = np.lexsort((table["document"], owner, table["low"], table["high"]))
    table, owner = table[order], owner[order]
    again = np.zeros(len(table), bool)
    again[1:] = (table["high"][1:] == table["high"][:-1]) & (table["low"][1:] == table["low"][:-1])
    found = np.empty(int(again.sum()), _DUPLICATE)
    found["unit"], found["document"] = owner[again], table["document"][again]
    found.sort(order=("unit", "document"))
    _save(store, f"work/{component}/duplicates-{number:05d}.npy", found)


def duplicates(store: Store, component: str, unit: int) -> set[int]:
    """Numbers of the unit's documents whose text came before, in this unit or an earlier one."""
    found: set[int] = set()
    for name in store.names(f"work/{component}"):
        if name.startswith("duplicates-"):
            table = _load(store, f"work/{component}/{name}")
            start, stop = np.searchsorted(table["unit"], [unit, unit + 1])
            found.update(table["document"][start:stop].tolist())
    return found


def _save(store: Store, name: str, table: np.ndarray) -> None:
    with store.writing(name) as path, open(path, "wb") as file:
        np.save(file, table, allow_pickle=False)


def _load(store: Store, name: str) -> np.ndarray:
    if is_remote(store.root):
        return np.load(io.BytesIO(store.read(name)), allow_pickle=False)
    return np.load(store.path(name), mmap_mode="r", allow_pickle=False)

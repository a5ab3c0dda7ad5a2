"""One unit of the corpus to files of rows: read, tokenise, cut, pack, write.

The only place where rows are made, for one process and for many machines. All that a unit gives
depends on its files and on the settings. Each window of it leaves its files of rows and then a
record in `work/`; a unit that is started again goes on behind its last record.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io import checksums
from modernbert_jax.io.store import Store
from modernbert_jax.packing import pack
from modernbert_jax.tokenizer import FILES, Tokenizer

from ..rows import manifest
from ..rows.records import row_record, write_records
from . import deduplicate, pool
from .components import WorkUnit
from .sources import Document, OnError, Piece, documents, fetched
from .tokenise import bounds, tokenise

_TICK = 64
"""Documents between two signs of progress."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What rows depend on, besides the corpus."""

    root: str
    """Of the store to write into, which has the tokenizer's files too."""
    tokenizer_sha256: str
    lengths: tuple[int, ...]
    dtype: str
    seed: int
    validation: float
    window_documents: int
    window_tokens: int
    deduplicate: bool
    on_error: OnError


def digest_unit(settings: Settings, unit: WorkUnit) -> None:
    """Writes what finding duplicates needs to know of a unit."""
    store = Store(settings.root)
    if not store.exists(f"work/{unit.component}/digests-{unit.name}.npy"):
        found = (document for _, document in Reading(settings, unit))
        deduplicate.write_digests(store, unit.component, unit.name, found)


def make_unit(settings: Settings, unit: WorkUnit) -> None:
    """Writes a unit's rows and records, or those of them that are not there yet.

    Raises:
        UserError: a source that cannot be used, or a file that cannot be written.
    """
    store = Store(settings.root)
    work = f"work/{unit.component}"
    if store.exists(f"{work}/unit-{unit.name}.json"):
        return
    left_out = set()
    if settings.deduplicate:
        left_out = deduplicate.duplicates(store, unit.component, unit.number)
    behind, count = 0, 0
    while store.exists(f"{work}/window-{unit.name}-{count:04d}.json"):
        record = json.loads(store.read(f"{work}/window-{unit.name}-{count:04d}.json"))
        behind, count = record["next"], count + 1
    reading = Reading(settings, unit)
    rest = ((n, d) for n, d in reading if n >= behind and n not in left_out)
    tokenizer = _tokenizer(settings.root, settings.tokenizer_sha256)
    with contextlib.closing(tokenise(rest, tokenizer, np.dtype(settings.dtype))) as tokenised:
        while (window := PackingWindow.fill(tokenised, settings)) is not None:
            name = f"{unit.name}-{count:04d}"
            record = window.write(store, settings, tokenizer, unit, count, name)
            store.write(f"{work}/window-{name}.json", _json(record))
            count += 1
    record = {"sources": reading.sources, "duplicates": len(left_out), "windows": count}
    store.write(f"{work}/unit-{unit.name}.json", _json(record))


class Reading:
    """A unit's usable documents with their numbers, and what was found out about its files."""

    def __init__(self, settings: Settings, unit: WorkUnit):
        self._settings, self._unit = settings, unit
        self.sources: list[dict] = []
        """Facts of every piece, as `manifest.SourceFile` has them."""

    def __iter__(self) -> Iterator[tuple[int, Document]]:
        number = 0
        for piece in self._unit.pieces:
            facts = {
                "path": piece.source.path,
                "bytes": piece.source.bytes,
                "sha256": "",
                "documents": 0,
                "skipped": {},
            }
            self.sources.append(facts)
            for document in self._documents(piece, facts):
                facts["documents"] += 1
                yield number, document
                number += 1

    def _documents(self, piece: Piece, facts: dict) -> Iterator[Document]:
        on_error, skipped = self._settings.on_error, facts["skipped"]
        with contextlib.ExitStack() as stack:
            try:
                path = stack.enter_context(fetched(piece.source))
            except UserError:
                if on_error == "stop":
                    raise
                skipped["damaged or unreadable"] = 1
                return
            if piece.start == 0:
                with contextlib.suppress(OSError):  # reading tells what is wrong
                    facts["sha256"] = checksums.sha256(path)
            for document in documents(piece, path, self._unit.field, on_error, skipped):
                if not isinstance(document, str):
                    self._check(piece, document)
                yield document

    def _check(self, piece: Piece, ids: np.ndarray) -> None:
        size = _tokenizer(self._settings.root, self._settings.tokenizer_sha256).vocab_size
        if ids.min() < 0 or ids.max() >= size:
            raise UserError(
                f"{piece.source.path}: has token ids from {ids.min()} to {ids.max()}, and the"
                f" tokenizer {size}; pass the tokenizer that it was made with"
            )


@dataclasses.dataclass
class PackingWindow:
    """Documents that are packed together, as token ids without special tokens around them."""

    splits: dict[str, list[np.ndarray]]
    next: int = 0
    """Number of the unit's first document behind the window."""
    tokenless: int = 0

    @classmethod
    def fill(cls, tokenised: Iterator, settings: Settings) -> "PackingWindow | None":
        """The next window of a stream of (number, document, ids); None at its end."""
        window, tokens, count = cls({split: [] for split in manifest.SPLITS}), 0, 0
        for number, document, ids in tokenised:
            window.next = number + 1
            if number % _TICK == 0:
                pool.tick(_TICK)
            if not len(ids):
                window.tokenless += 1
                continue
            held_out = settings.validation and _fraction(document) < settings.validation
            window.splits["validation" if held_out else "train"].append(ids)
            count, tokens = count + 1, tokens + len(ids)
            if count >= settings.window_documents or tokens >= settings.window_tokens:
                break
        return window if window.next else None

    def write(
        self,
        store: Store,
        settings: Settings,
        tokenizer: Tokenizer,
        unit: WorkUnit,
        number: int,
        name: str,
    ) -> dict:
        """Writes the window's rows of all lengths and splits; returns its record."""
        special = np.zeros(tokenizer.vocab_size, bool)
        special[[i for i in tokenizer.special_ids if i != tokenizer.unk_id]] = True
        everything = [ids for documents in self.splits.values() for ids in documents]
        unknown = -1 if tokenizer.unk_id is None else tokenizer.unk_id
        record = {
            "next": self.next,
            "tokenless": self.tokenless,
            "documents": {split: len(found) for split, found in self.splits.items()},
            "tokens": {split: sum(map(len, found)) for split, found in self.splits.items()},
            "unknown": sum(int((ids == unknown).sum()) for ids in everything),
            "special": sum(int(special[ids].sum()) for ids in everything),
            "document_lengths": manifest.histogram(np.array([len(ids) for ids in everything])),
            "lengths": {},
        }
        ends = np.array([tokenizer.cls_id, tokenizer.sep_id], settings.dtype)
        for length, (split, found) in itertools.product(settings.lengths, self.splits.items()):
            if found:
                file = f"{unit.component}/{length}/{split}-{name}.arrayrecord"
                made = _write_rows(
                    store, file, found, length, ends, [settings.seed, unit.number, number]
                )
                record["lengths"].setdefault(str(length), {})[split] = made
        return record


def _write_rows(
    store: Store,
    file: str,
    found: list[np.ndarray],
    length: int,
    ends: np.ndarray,
    seed: list[int],
) -> dict:
    """Cuts and packs documents and writes the rows into one file; returns its facts."""
    samples = [(ids, a, b) for ids in found for a, b in bounds(len(ids), length - 2)]
    lengths = np.array([b - a + 2 for _, a, b in samples])
    rows = pack(lengths, length, seed=seed)
    cls, sep = ends[:1], ends[1:]

    def records() -> Iterator[bytes]:
        for row in rows:
            chosen = (samples[i] for i in row)
            yield row_record([np.concatenate([cls, d[a:b], sep]) for d, a, b in chosen], ends.dtype)

    with store.writing(file) as path:
        count = write_records(path, records())
        shard = manifest.Shard(
            file=file, rows=count, bytes=path.stat().st_size, sha256=checksums.sha256(path)
        )
    return {
        "samples": len(samples),
        "tokens": int(lengths.sum()),
        "sample_lengths": manifest.histogram(lengths),
        "shard": dataclasses.asdict(shard),
    }


@functools.lru_cache(maxsize=2)
def _tokenizer(root: str, sha256: str) -> Tokenizer:
    """The tokenizer in a store. The hash is there to tell one folder's tokenizers apart."""
    store = Store(root)
    names = [name for name in store.names("tokenizer") if name in FILES]
    return Tokenizer({n: store.read(f"tokenizer/{n}") for n in names}, store.path("tokenizer"))


def _fraction(document: Document) -> float:
    """A fixed pseudo-random number in [0, 1) for a document's content."""
    return int.from_bytes(deduplicate.digest(document)[:8], "big") / 2**64


def _json(record: dict) -> bytes:
    return json.dumps(record).encode()

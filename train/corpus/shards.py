"""One unit of the corpus to files of rows: read, tokenise, cut, pack, write.

This is the only place where rows are made, for one process and for many machines. The result
depends on the unit's files and the settings alone. Each window of a unit leaves its files of rows
and then a record in `work/`; a restarted unit resumes after its last record.
"""

import contextlib
import dataclasses
import functools
import itertools
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from modernbert_jax import ranges
from modernbert_jax.errors import UserError
from modernbert_jax.io import checksums
from modernbert_jax.io.json_reader import parse_object
from modernbert_jax.io.store import Store
from modernbert_jax.packing import pack
from modernbert_jax.ranges import Count, Length, Rate, Seed
from modernbert_jax.tokenizer import FILES, Tokenizer

from ..rows import manifest
from ..rows.records import row_record, write_records
from . import deduplicate, pool
from .components import WorkUnit
from .sources import Document, OnError, Piece, documents, fetched
from .tokenise import Tokenised, bounds, tokenise

_TICK = 64
"""Documents between two reports of progress."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that rows depend on, besides the corpus."""

    root: str
    """Path or URL of the store to write into, which also holds the tokenizer's files."""
    tokenizer_sha256: str
    lengths: tuple[Length, ...]
    dtype: manifest.Dtype
    seed: Seed
    validation: Rate
    window_documents: Count
    window_tokens: Count
    deduplicate: bool
    on_error: OnError

    def __post_init__(self):
        ranges.check(self)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer from the store, loaded once."""
        return _tokenizer(self.root, self.tokenizer_sha256)


def digest_unit(settings: Settings, unit: WorkUnit) -> None:
    """Store the digests of a unit's documents, unless they are stored already."""
    store = Store(settings.root)
    if not store.exists(f"work/{unit.component}/digests-{unit.name}.npy"):
        texts = (document for _, document in Reader(settings, unit))
        deduplicate.write_digests(store, unit.component, unit.name, texts)


def make_unit(settings: Settings, unit: WorkUnit) -> None:
    """Write a unit's rows and records, except those that are written already.

    Raises:
        UserError: a source cannot be used, or a file cannot be written.
    """
    store = Store(settings.root)
    work = f"work/{unit.component}"
    if store.exists(f"{work}/unit-{unit.name}.json"):
        return
    duplicates = set()
    if settings.deduplicate:
        duplicates = deduplicate.duplicates_of(store, unit.component, unit.number)
    start, count = 0, 0
    while store.exists(name := f"{work}/window-{unit.name}-{count:04d}.json"):
        start, count = parse_object(store.read(name), store.path(name))["next"], count + 1
    reader = Reader(settings, unit)
    rest = ((n, d) for n, d in reader if n >= start and n not in duplicates)
    tokenised = tokenise(rest, settings.tokenizer(), np.dtype(settings.dtype))
    with contextlib.closing(tokenised):
        while (window := PackingWindow.fill(tokenised, settings)) is not None:
            record = window.write(store, settings, unit, count)
            store.write(f"{work}/window-{unit.name}-{count:04d}.json", json.dumps(record).encode())
            count += 1
    record = {"sources": reader.sources, "duplicates": len(duplicates), "windows": count}
    store.write(f"{work}/unit-{unit.name}.json", json.dumps(record).encode())


class Reader:
    """Yields a unit's usable documents with their numbers, and collects facts of its files."""

    def __init__(self, settings: Settings, unit: WorkUnit):
        self._settings, self._unit = settings, unit
        self.sources: list[dict[str, Any]] = []
        """Fields of `manifest.SourceFile` for each piece read so far."""

    def __iter__(self) -> Iterator[tuple[int, Document]]:
        number = 0
        for piece in self._unit.pieces:
            facts: dict[str, Any] = {"path": piece.source.path, "bytes": piece.source.bytes}
            facts |= {"sha256": "", "documents": 0, "skipped": {}}
            self.sources.append(facts)
            for document in self._documents(piece, facts):
                facts["documents"] += 1
                yield number, document
                number += 1

    def _documents(self, piece: Piece, facts: dict[str, Any]) -> Iterator[Document]:
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
                with contextlib.suppress(OSError):  # reading the file raises with the reason
                    facts["sha256"] = checksums.sha256(path)
            for document in documents(piece, path, self._unit.field, on_error, skipped):
                if not isinstance(document, str):
                    self._check(piece, document)
                yield document

    def _check(self, piece: Piece, ids: np.ndarray) -> None:
        size = self._settings.tokenizer().vocab_size
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
    """Number of the unit's first document after the window."""
    tokenless: int = 0

    @classmethod
    def fill(cls, tokenised: Iterator[Tokenised], settings: Settings) -> "PackingWindow | None":
        """Take the next window from a stream of documents; None at its end."""
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
        self, store: Store, settings: Settings, unit: WorkUnit, number: int
    ) -> dict[str, Any]:
        """Write the window's rows of all lengths and splits, and return its record."""
        tokenizer = settings.tokenizer()
        special = np.zeros(tokenizer.vocab_size, bool)
        special[[i for i in tokenizer.special_ids if i != tokenizer.unk_id]] = True
        unknown = -1 if tokenizer.unk_id is None else tokenizer.unk_id
        everything = [ids for texts in self.splits.values() for ids in texts]
        record: dict[str, Any] = {
            "next": self.next,
            "tokenless": self.tokenless,
            "documents": {split: len(texts) for split, texts in self.splits.items()},
            "tokens": {split: sum(map(len, texts)) for split, texts in self.splits.items()},
            "unknown": sum(int((ids == unknown).sum()) for ids in everything),
            "special": sum(int(special[ids].sum()) for ids in everything),
            "document_lengths": manifest.histogram(np.array([len(ids) for ids in everything])),
            "lengths": {},
        }
        ends = np.array([tokenizer.cls_id, tokenizer.sep_id], settings.dtype)
        seed = [settings.seed, unit.number, number]
        for length, (split, texts) in itertools.product(settings.lengths, self.splits.items()):
            if texts:
                file = f"{unit.component}/{length}/{split}-{unit.name}-{number:04d}.arrayrecord"
                facts = _write_rows(store, file, texts, length, ends, seed)
                record["lengths"].setdefault(str(length), {})[split] = facts
        return record


def _write_rows(
    store: Store, file: str, texts: list[np.ndarray], length: int, ends: np.ndarray, seed: list[int]
) -> dict[str, Any]:
    """Cut and pack documents, write the rows into one file, and return its facts."""
    samples = [(ids, a, b) for ids in texts for a, b in bounds(len(ids), length - 2)]
    lengths = np.array([b - a + 2 for _, a, b in samples])
    rows = pack(lengths, length, seed=seed)
    cls, sep = ends[:1], ends[1:]

    def records() -> Iterator[bytes]:
        for row in rows:
            cut = (samples[i] for i in row)
            yield row_record([np.concatenate([cls, d[a:b], sep]) for d, a, b in cut], ends.dtype)

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
    """Load the tokenizer of a store; its hash distinguishes tokenizers of the same folder."""
    store = Store(root)
    names = [name for name in store.names("tokenizer") if name in FILES]
    return Tokenizer({n: store.read(f"tokenizer/{n}") for n in names}, store.path("tokenizer"))


def _fraction(document: Document) -> float:
    """A fixed pseudo-random number in [0, 1) for a document's content."""
    return int.from_bytes(deduplicate.digest(document)[:8], "big") / 2**64

"""From text to packed rows on disk: tokenise, cut, pack, write, once for all.

A prepared folder holds the tokenizer's files, `documents/` (token ids of every document),
`length-<T>/train*.arrayrecord` and `.../validation*.arrayrecord` (packed rows), and
`manifest.json`, which is written last: a folder without it is not a prepared one.
"""

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from modernbert_jax.errors import UserError
from modernbert_jax.files import whole_directory, write_json
from modernbert_jax.packing import pack
from modernbert_jax.tokenizer import Tokenizer

from .sources import Corpus

FORMAT = 1
"""Version of the layout on disk."""

WINDOW = 65_536
"""Documents that are packed together. More would pack no better: 99.98 % at length 1,024."""

SHARD_ROWS = 65_536
"""Rows in a file."""

SPLITS = ("train", "validation")

LEAST = 64
"""Tokens in the last piece of a document that is cut: fewer would have no context to learn from."""

_BATCH = 256
_PIECE = 1 << 20
"""Characters that are tokenised at once; a longer document is tokenised in pieces."""

_REPORT_SECONDS = 10.0

Report = Callable[[str], None]


def prepare(
    corpus: Corpus,
    tokenizer: Tokenizer,
    output: str | Path,
    lengths: Sequence[int],
    *,
    validation: float = 0.01,
    seed: int = 0,
    report: Report = lambda line: None,
) -> dict[str, Any]:
    """Writes a prepared folder for rows of each length and returns its manifest.

    Documents are cut into samples that fit the row, each beginning with [CLS] and ending with
    [SEP], and packed. A share of about `validation` of the documents, chosen by a hash of their
    number, is kept apart.

    Raises:
        UserError: nothing usable in the corpus, or an output that exists already.
    """
    if not lengths or min(lengths) < 8:
        raise UserError(f"length is {min(lengths, default=None)}; a row must have 8 tokens or more")
    dtype = np.dtype(np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32)
    with whole_directory(output) as folder:
        (folder / "documents").mkdir()
        tokenizer.save(folder)
        counts = _write_documents(
            corpus, tokenizer, folder / "documents", validation, dtype, report
        )
        if not counts["train"]["documents"]:
            raise UserError(_nothing(corpus))
        report(
            f"tokenised {counts['train']['documents'] + counts['validation']['documents']:,}"
            f" documents, {counts['train']['tokens'] + counts['validation']['tokens']:,} tokens"
        )
        rows = {}
        for length in sorted(set(lengths)):
            rows[str(length)] = {
                split: _write_rows(folder, split, length, tokenizer, dtype, seed)
                for split in SPLITS
                if counts[split]["documents"]
            }
            made = rows[str(length)]["train"]
            report(
                f"packed {made['rows']:,} rows of {length:,} tokens, {made['efficiency']:.2%} full"
            )
        manifest = {
            "format": FORMAT,
            "tokenizer_sha256": hashlib.sha256(tokenizer.files["tokenizer.json"]).hexdigest(),
            "vocab_size": tokenizer.vocab_size,
            "dtype": dtype.name,
            "packer": f"best-fit decreasing over {WINDOW} documents, seed {seed}",
            "documents": counts,
            "lengths": rows,
            "skipped": corpus.skipped,
            "sources": [{"path": str(p), "bytes": p.stat().st_size} for p in corpus.paths],
        }
        write_json(folder / "manifest.json", manifest)
    return manifest


def cut(body: np.ndarray, size: int, least: int) -> list[np.ndarray]:
    """Cuts token ids into pieces of at most `size`, the last with `least` or more.

    As in Ettin's data (Weller et al. 2025): a short last piece is filled up with tokens taken
    from the end of the piece before it, so that none is lost or repeated. In rows too short for
    `least` an eighth of the row will do, because long last pieces pack badly.
    """
    bounds = [*range(0, len(body), size), len(body)]
    if len(bounds) > 2:
        bounds[-2] = min(bounds[-2], len(body) - min(least, size // 8))
    return [body[a:b] for a, b in itertools.pairwise(bounds)]


def row_record(documents: Sequence[np.ndarray], dtype: np.dtype) -> bytes:
    """A packed row as bytes: number of documents and their lengths (uint32), then the ids."""
    head = np.array([len(documents), *(len(d) for d in documents)], "<u4")
    return head.tobytes() + np.concatenate(documents).astype(dtype.newbyteorder("<")).tobytes()


def read_row(record: bytes, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Token ids on end and document lengths of a row written by `row_record`."""
    count = int(np.frombuffer(record, "<u4", 1)[0])
    lengths = np.frombuffer(record, "<u4", count, offset=4)
    ids = np.frombuffer(record, dtype.newbyteorder("<"), offset=4 * (count + 1))
    return ids, lengths


def _write_documents(
    corpus, tokenizer, folder, validation, dtype, report
) -> dict[str, dict[str, int]]:
    """Token ids of every document without special tokens, one record each, by split."""
    writers = {
        s: ArrayRecordWriter(str(folder / f"{s}.arrayrecord"), "group_size:1") for s in SPLITS
    }
    counts = {split: {"documents": 0, "tokens": 0} for split in SPLITS}
    number, reported = 0, time.monotonic()
    for texts in _batches(corpus, _BATCH):
        if time.monotonic() - reported > _REPORT_SECONDS:
            reported = time.monotonic()
            report(f"tokenised {number:,} documents so far")
        pieces = [[t[i : i + _PIECE] for i in range(0, len(t), _PIECE)] for t in texts]
        encoded = iter(tokenizer.encode_raw([p for parts in pieces for p in parts]))
        for parts in pieces:
            ids = [i for _ in parts for i in next(encoded)]
            split = SPLITS[_fraction(number) < validation and number > 0]
            number += 1
            if ids:
                writers[split].write(np.asarray(ids, dtype).tobytes())
                counts[split]["documents"] += 1
                counts[split]["tokens"] += len(ids)
    for writer in writers.values():
        writer.close()
    return counts


def _write_rows(folder, split, length, tokenizer, dtype, seed) -> dict[str, Any]:
    """Packs one split at one length; returns its counts."""
    (folder / f"length-{length}").mkdir(exist_ok=True)
    rows = tokens = samples = 0
    writer = None
    for window, documents in enumerate(
        _batches(_samples(folder, split, length, tokenizer, dtype), WINDOW)
    ):
        for row in pack([len(d) for d in documents], length, seed=seed + window):
            if rows % SHARD_ROWS == 0:
                if writer is not None:
                    writer.close()
                name = f"{split}-{rows // SHARD_ROWS:05d}.arrayrecord"
                writer = ArrayRecordWriter(str(folder / f"length-{length}" / name), "group_size:1")
            writer.write(row_record([documents[i] for i in row], dtype))
            rows += 1
        samples += len(documents)
        tokens += sum(len(d) for d in documents)
    writer.close()
    return {
        "rows": rows,
        "samples": samples,
        "tokens": tokens,
        "efficiency": tokens / (rows * length),
    }


def _samples(folder, split, length, tokenizer, dtype) -> Iterator[np.ndarray]:
    """Documents cut to fit the row, with [CLS] and [SEP] around every piece."""
    reader = ArrayRecordReader(str(folder / "documents" / f"{split}.arrayrecord"))
    cls, sep = np.asarray([tokenizer.cls_id], dtype), np.asarray([tokenizer.sep_id], dtype)
    for start in range(0, reader.num_records(), _BATCH):
        for record in reader.read(start, min(start + _BATCH, reader.num_records())):
            for piece in cut(np.frombuffer(record, dtype), length - 2, LEAST):
                yield np.concatenate([cls, piece, sep])
    reader.close()


def _fraction(number: int) -> float:
    """A fixed pseudo-random number in [0, 1) for a document's number."""
    digest = hashlib.blake2b(str(number).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _batches(items, size: int) -> Iterator[list]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _nothing(corpus: Corpus) -> str:
    left_out = ", ".join(f"{count} {reason}" for reason, count in corpus.skipped.items())
    return f"{corpus.paths[0]}{', ...' if len(corpus.paths) > 1 else ''}: no usable text" + (
        f" ({left_out})" if left_out else ""
    )

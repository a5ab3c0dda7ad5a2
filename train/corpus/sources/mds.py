"""Shards of MosaicML's streaming format (MDS): texts or token ids, compressed or not.

The folder's `index.json` lists the shards with their columns, sizes and hashes. A shard is a
count n (uint32), n+1 offsets from the file's start (uint32), a description, and the samples. A
sample has a size (uint32) for each column without a fixed one, then the columns' content.
"""

import bz2
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zstandard

from modernbert_jax.errors import UserError

from .document import Bad, Damaged, Document, Piece, decoded

INDEX = "index.json"
_IDS = ("input_ids", "tokens")
_KINDS = {
    8: "u1", 9: "i1", 16: "u2", 17: "i2", 18: "f2", 32: "u4", 33: "i4", 34: "f4",
    64: "u8", 65: "i8", 66: "f8",
}  # fmt: skip
"""Array types by their code: the width in bits, plus 0 for unsigned, 1 for signed, 2 for real."""


def shards(content: bytes, path: str) -> list[dict[str, Any]]:
    """List the shards of an index. Raises `UserError` if it is damaged or of another format."""
    try:
        index = json.loads(content)
        listed = index["shards"]
        if listed == []:
            raise UserError(f"{path}: lists no shards; leave this folder out, or write it again")
        if index["version"] != 2 or not all(s["format"] == "mds" for s in listed):
            raise UserError(f"{path}: lists shards of another format than MDS version 2")
        for shard in listed:
            for name in {file_name(shard, zipped) for zipped in (False, True)}:
                if name is None:
                    continue
                if not set(name.split("/")).isdisjoint({"", ".", ".."}) or "\\" in name:
                    raise UserError(f"{path}: {name!r} is not the name of a file below it")
            names = shard["column_names"]
            encodings, sizes = shard["column_encodings"], shard["column_sizes"]
            if not len(names) == len(encodings) == len(sizes):
                raise UserError(f"{path}: its columns have different numbers of facts")
            int(shard["samples"]), int(shard["raw_data"]["bytes"])
    except UserError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: damaged index of an MDS folder ({error})") from None
    return listed


def is_shard(path: str) -> bool:
    """Whether a path is that of a shard, compressed or not."""
    return re.search(r"\.mds(\.\w+)?$", path) is not None


def file_name(shard: dict[str, Any], zipped: bool) -> str | None:
    """Name of a shard's file, compressed or not; None if there is no compressed one."""
    data = shard.get("zip_data") if zipped else shard["raw_data"]
    return data["basename"] if data else None


def read(path: Path, piece: Piece, field: str) -> Iterator[Document | Bad]:
    """Yield the samples of one shard, in order."""
    shard = json.loads(piece.source.shard)
    column = _column(piece.source.path, shard, field)
    raw = _raw(path, Path(piece.source.path).name, shard)
    count = int(np.frombuffer(raw, "<u4", 1)[0]) if len(raw) >= 4 else -1
    if count != shard["samples"] or len(raw) < 4 * (count + 2):
        raise Damaged(f"has {count} samples, not {shard['samples']}")
    offsets = np.frombuffer(raw, "<u4", count + 1, offset=4).astype(np.int64)
    if (np.diff(offsets) < 0).any() or offsets[0] < 4 * (count + 2) or offsets[-1] > len(raw):
        raise Damaged("its offsets point outside the file")
    encoding = shard["column_encodings"][column]
    is_text = encoding == "str" or (encoding == "bytes" and shard["column_names"][column] == field)
    for number in range(count):
        sample = raw[offsets[number] : offsets[number + 1]]
        value = _cell(sample, shard["column_sizes"], column)
        yield decoded(value, f", sample {number}") if is_text else _array(value, encoding)


def _column(path: str, shard: dict[str, Any], field: str) -> int:
    """Index of the column to read: texts, or else token ids. Pickled columns are never decoded."""
    names = shard["column_names"]
    for name in (field, *_IDS):
        if name in names:
            encoding = shard["column_encodings"][names.index(name)]
            if encoding in ("str", "bytes") or encoding.split(":")[0] == "ndarray":
                return names.index(name)
            raise UserError(
                f"{path}: column {name!r} is encoded as {encoding!r}; only str, bytes and ndarray"
                " are read"
            )
    raise UserError(
        f"{path}: has no column {field!r} or 'input_ids', only {', '.join(names)}; name one with"
        " --field"
    )


def _raw(path: Path, name: str, shard: dict[str, Any]) -> bytes:
    """Content of a shard, decompressed, with its size and hashes checked."""
    content = path.read_bytes()
    size = int(shard["raw_data"]["bytes"])
    if shard.get("zip_data") and name == Path(shard["zip_data"]["basename"]).name:
        _check(content, shard["zip_data"])
        content = _decompress(content, shard["compression"], size)
    _check(content, shard["raw_data"])
    return content


def _check(content: bytes, facts: dict[str, Any]) -> None:
    if len(content) != facts["bytes"]:
        raise Damaged(f"has {len(content)} bytes, not {facts['bytes']}")
    for name, wanted in (facts.get("hashes") or {}).items():
        known = name in hashlib.algorithms_guaranteed and not name.startswith("shake")
        if known and hashlib.new(name, content).hexdigest() != wanted:
            raise Damaged(f"its {name} is not the index's")


def _decompress(content: bytes, compression: str, size: int) -> bytes:
    """Decompress, to at most `size` + 1 bytes, so that a bomb is noticed and not unpacked."""
    kind = compression.split(":")[0]
    try:
        if kind == "zstd":
            stream = zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True)
            return stream.read(size + 1)
        if kind == "gz":
            return zlib.decompressobj(31).decompress(content, size + 1)
        if kind == "bz2":
            return bz2.BZ2Decompressor().decompress(content, size + 1)
    except (zstandard.ZstdError, zlib.error, gzip.BadGzipFile, OSError, EOFError) as error:
        raise Damaged(error) from None
    raise UserError(f"MDS compression {compression!r} is not read, only zstd, gz and bz2")


def _cell(sample: bytes, sizes: list[int | None], column: int) -> bytes:
    """Content of one column of a sample."""
    variable = sizes.count(None)
    if len(sample) < 4 * variable:
        raise Damaged("a sample is too short")
    stored = iter(np.frombuffer(sample, "<u4", variable).tolist())
    lengths = [next(stored) if size is None else size for size in sizes]
    if 4 * variable + sum(lengths) != len(sample):
        raise Damaged("the columns of a sample do not fill it")
    start = 4 * variable + sum(lengths[:column])
    return sample[start : start + lengths[column]]


def _array(content: bytes, encoding: str) -> np.ndarray:
    """Token ids [n] of an array of any type and shape; bytes are int64, as research code writes."""
    if encoding == "bytes":
        if len(content) % 8:
            raise Damaged("bytes of token ids are not int64")
        return np.frombuffer(content, "<i8")
    _, dtype, shape = [*encoding.split(":"), "", ""][:3]
    at = 0
    if not dtype:
        if not content or content[0] not in _KINDS:
            raise Damaged("an array has an unknown type")
        dtype, at = _KINDS[content[0]], 1
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        raise Damaged(f"token ids are {kind}, not integers")
    if not shape:
        dims, width = content[at] >> 2, 1 << (content[at] & 3)
        at += 1 + dims * width
    if (len(content) - at) % kind.itemsize:
        raise Damaged("an array does not fill its column")
    return np.frombuffer(content, kind.newbyteorder("<"), offset=at)

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
from modernbert_jax.io.json_reader import parse_object
from modernbert_jax.io.text import check_name, check_text, clipped

from .document import Bad, Damaged, Document, Piece, decoded

INDEX = "index.json"
_IDS = ("input_ids", "tokens")
_KINDS = {
    8: "u1", 9: "i1", 16: "u2", 17: "i2", 18: "f2", 32: "u4", 33: "i4", 34: "f4",
    64: "u8", 65: "i8", 66: "f8",
}  # fmt: skip
"""Array types by their code: the width in bits, plus 0 for unsigned, 1 for signed, 2 for real."""
_DTYPES = {*_KINDS.values(), *(np.dtype(kind).name for kind in _KINDS.values())}
_CHUNK = 2**24
"""Bytes that are decompressed at once, however large the index says that the content is."""


def shards(content: bytes, path: str) -> list[dict[str, Any]]:
    """List the shards of an index. Raises `UserError` if it is damaged or of another format."""
    index = parse_object(content, path)
    listed = index.get("shards")
    if not isinstance(listed, list) or not all(isinstance(shard, dict) for shard in listed):
        raise UserError(f"{path}: damaged index of an MDS folder (shards is not a list of objects)")
    if not listed:
        raise UserError(f"{path}: lists no shards; leave this folder out, or write it again")
    if index.get("version") != 2 or not all(shard.get("format") == "mds" for shard in listed):
        raise UserError(f"{path}: lists shards of another format than MDS version 2")
    for number, shard in enumerate(listed):
        try:
            _check_shard(shard)
        except UserError as error:
            raise UserError(
                f"{path}: damaged index of an MDS folder (shard {number}: {error})"
            ) from None
    return listed


def _check_shard(shard: dict[str, Any]) -> None:
    """Raise `UserError` for facts of a shard that are missing, of a wrong type or out of range."""
    names, encodings = (_texts(shard, key) for key in ("column_names", "column_encodings"))
    sizes = shard.get("column_sizes")
    if not isinstance(sizes, list) or not all(s is None or _is_count(s) for s in sizes):
        raise UserError("column_sizes is not a list of numbers and nulls")
    if not len(names) == len(encodings) == len(sizes):
        raise UserError("its columns have different numbers of facts")
    if not _is_count(shard.get("samples")):
        raise UserError(f"samples is {shard.get('samples')!r}")
    zipped, compression = shard.get("zip_data"), shard.get("compression")
    for key, data in (("raw_data", shard.get("raw_data")), ("zip_data", zipped)):
        if data is None and key == "zip_data":
            continue
        if not isinstance(data, dict) or not _is_count(data.get("bytes")):
            raise UserError(f"{key} has no basename and bytes below 2^32")
        hashes = data.get("hashes")
        if hashes is not None and not isinstance(hashes, dict):
            raise UserError(f"{key}: hashes is not an object")
        name = check_text(data.get("basename"), f"{key}: basename")
        if not set(name.split("/")).isdisjoint({"", ".", ".."}) or "\\" in name:
            raise UserError(f"{name!r} is not the name of a file below it")
        for part in name.split("/"):
            check_name(part, key)
    if zipped is not None and not isinstance(compression, str):
        raise UserError(f"compression is {compression!r}")


def _texts(shard: dict[str, Any], key: str) -> list[str]:
    values = shard.get(key)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise UserError(f"{key} is not a list of texts")
    return values


def _is_count(value: Any) -> bool:
    """Whether a value is a number that MDS can store, in 32 bits."""
    return type(value) is int and 0 <= value < 2**32


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
            parts, missing = [], size + 1
            while missing and (part := stream.read(min(missing, _CHUNK))):
                parts.append(part)
                missing -= len(part)
            return b"".join(parts)
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
    if dtype not in _DTYPES:
        raise Damaged(f"an array has the unknown type {clipped(ascii(dtype), 40)}")
    kind = np.dtype(dtype)
    if kind.kind not in "iu":
        raise Damaged(f"token ids are {kind}, not integers")
    if not shape:
        if at >= len(content):
            raise Damaged("an array has no shape")
        dims, width = content[at] >> 2, 1 << (content[at] & 3)
        at += 1 + dims * width
    if at > len(content) or (len(content) - at) % kind.itemsize:
        raise Damaged("an array does not fill its column")
    return np.frombuffer(content, kind.newbyteorder("<"), offset=at)

"""One safetensors file: checked before it is read, read and written one tensor at a time.

The safetensors library reports only "incomplete metadata" for a truncated download, stops at the
first problem, and writes only tensors that are all in memory. Files written here are byte for byte
those that it would write.
"""

import functools
import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy)
import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io import lfs
from modernbert_jax.io.json_reader import parse_json

from .. import array_bytes, lazy

METADATA = {"format": "pt"}
"""Metadata of a file; transformers 4 refuses every other format."""

_FLOATS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""Dtypes of weights, in the order in which the library stores them."""

_CODES = {**{name: code for code, name in _FLOATS.items()}, "int8": "I8"}
"""Codes of the dtypes that are written; int8 is for exported programs, not for checkpoints."""

_HEADER_LIMIT = 100 * 2**20
"""Largest header in bytes, from the specification; protects against absurd allocations."""


def scan(path: Path) -> tuple[dict[str, lazy.Lazy], list[str]]:
    """The tensors of a file by name, lazy, and all problems of its header and size."""
    entries, start, problems = header(path)
    if problems:
        return {}, [f"{path.name}: {problem}" for problem in problems]
    tensors = {}
    for name, entry in entries.items():
        begin, end = entry["data_offsets"]
        dtype, shape = np.dtype(_FLOATS[entry["dtype"]]), tuple(entry["shape"])
        read = functools.partial(_read, path, start + begin, end - begin, dtype, shape)
        tensors[name] = lazy.source(name, shape, dtype, read)
    return tensors, []


def _read(
    path: Path, offset: int, size: int, dtype: np.dtype, shape: tuple[int, ...]
) -> np.ndarray:
    return array_bytes.read(path, offset, size).view(dtype).reshape(shape)


def write(path: Path, tensors: Mapping[str, lazy.Array]) -> None:
    """Write a file; a lazy tensor or stack is read while the one before it is written."""
    order = [*_CODES]
    entries: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for name in sorted(tensors, key=lambda n: (order.index(tensors[n].dtype.name), n)):
        x = tensors[name]
        code, span = _CODES[x.dtype.name], [end, end := end + x.nbytes]
        entries[name] = {"dtype": code, "shape": list(x.shape), "data_offsets": span}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file, ThreadPoolExecutor(1) as thread:

        def put(offset: int, data: bytes | memoryview) -> None:
            file.seek(offset)
            file.write(data)

        writing = thread.submit(put, 0, len(text).to_bytes(8, "little") + text)
        for name in lazy.by_origin(tensors):
            data = array_bytes.view(tensors[name])
            writing.result()
            offset = 8 + len(text) + entries[name]["data_offsets"][0]
            writing = thread.submit(put, offset, data)
        writing.result()
        file.truncate(8 + len(text) + end)


def header(path: Path) -> tuple[dict[str, Any], int, list[str]]:
    """The entries of a file by tensor name, the offset of the data, and all problems."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(lfs.BEGINNING))
        length = int.from_bytes(start[:8], "little")
        problem = ""
        if lfs.is_pointer(start):
            problem = lfs.PROBLEM
        elif size < 8:
            problem = f"truncated, {size} bytes are no safetensors file"
        elif length > _HEADER_LIMIT:
            limit = f"a header of {length} bytes; at most {_HEADER_LIMIT} are allowed"
            problem = f"not a safetensors file, or damaged ({limit})"
        elif length > size - 8:
            problem = f"truncated, a header of {length} bytes in {size}"
        if problem:
            return {}, 0, [problem]
        file.seek(8)
        raw = file.read(length)
    try:
        entries = parse_json(raw, "the header", object_pairs_hook=_without_duplicates)
    except UserError as error:
        return {}, 0, [str(error)]
    if not isinstance(entries, dict):
        return {}, 0, ["the header is not a JSON object"]
    entries.pop("__metadata__", None)
    return entries, 8 + length, [*_check_entries(entries, size - 8 - length)]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    by_name = dict(pairs)
    if len(by_name) < len(pairs):
        raise ValueError("a name twice")
    return by_name


def _check_entries(entries: Mapping[str, Any], size: int) -> Iterator[str]:
    """All problems of the tensors that a header describes, in `size` bytes of data."""
    spans = []
    for name, entry in entries.items():
        problem = _check_entry(entry)
        if problem:
            yield f"{name} {problem}"
        else:
            spans.append((*entry["data_offsets"], name))
    reached, before = 0, None
    for begin, end, name in sorted(spans):
        if begin < reached:
            yield f"{name} overlaps {before}"
        elif begin > reached and len(spans) == len(entries):
            yield f"{begin - reached} bytes before {name} belong to no tensor"
        reached, before = max(reached, end), name
    if reached > size:
        yield f"truncated, {size} bytes of data where the header says {reached}"
    elif reached < size and len(spans) == len(entries):
        yield f"{size - reached} bytes at the end belong to no tensor"


def _check_entry(entry: Any) -> str | None:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= {*entry}:
        return "has no dtype, shape or data_offsets"
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in _FLOATS:
        return f"has dtype {dtype!r}; weights are {', '.join(_FLOATS)}"
    if not _is_sizes(shape) or not _is_sizes(offsets) or len(offsets) != 2:
        return f"has shape {shape!r} and data_offsets {offsets!r}, which make no sense"
    actual, needed = offsets[1] - offsets[0], math.prod(shape) * np.dtype(_FLOATS[dtype]).itemsize
    if actual != needed:
        return f"has {actual} bytes; {dtype} {shape} needs {needed}"
    if len(shape) > 8 or needed == 0:
        return f"has shape {shape}; weights have up to 8 axes, none of them empty"
    return None


def _is_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)

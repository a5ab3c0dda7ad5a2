"""One safetensors file: checked before it is read, read and written one tensor at a time.

The library that reads them says no more than "incomplete metadata" about a truncated download,
stops at the first problem, and writes only what lies in memory as a whole. Files written here are
those that it would write, byte for byte.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  (makes numpy know bfloat16)
import numpy as np

from modernbert_jax.errors import UserError

from . import lazy

METADATA = {"format": "pt"}
"""transformers 4 refuses a file whose metadata says anything else."""

_FLOATS = {"F64": "float64", "F32": "float32", "BF16": "bfloat16", "F16": "float16"}
"""The dtypes of weights, in the order in which the library stores them."""

_NAMES = {name: code for code, name in _FLOATS.items()}
_HEADER_LIMIT = 100 * 2**20
"""Of the format's specification, against files that ask for absurd amounts of memory."""


def scan(path: Path) -> tuple[dict[str, lazy.Lazy], list[str]]:
    """A file's tensors by name, and everything wrong with its header and size."""
    entries, start, problems = _header(path)
    problems = [f"{path.name}: {problem}" for problem in problems]
    if problems:
        return {}, problems
    found = {}
    for name, entry in entries.items():
        offset, end = entry["data_offsets"]
        dtype, shape = _FLOATS[entry["dtype"]], tuple(entry["shape"])
        read = reader(path, start + offset, end - offset, dtype, shape)
        found[name] = lazy.source(name, shape, dtype, read)
    return found, []


def reader(
    path: Path, offset: int, size: int, dtype: Any, shape: tuple[int, ...]
) -> Callable[[], np.ndarray]:
    """A function that reads an array out of a file."""

    def read() -> np.ndarray:
        # Not mapped: of a file that is cut off while it is read, a signal would be all to hear.
        try:
            data = np.fromfile(path, np.uint8, size, offset=offset)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
        if data.size < size:
            raise UserError(f"{path}: ended while it was being read")
        return data.view(np.dtype(dtype)).reshape(shape)

    return read


def write(path: Path, tensors: Mapping[str, np.ndarray | lazy.Lazy]) -> None:
    """Writes a file; a lazy tensor, or stack, is read while the one before it is written."""
    order = [*_FLOATS.values()]
    entries: dict[str, Any] = {"__metadata__": METADATA}
    end = 0
    for name in sorted(tensors, key=lambda n: (order.index(tensors[n].dtype.name), n)):
        x = tensors[name]
        code, span = _NAMES[x.dtype.name], [end, end := end + x.nbytes]
        entries[name] = {"dtype": code, "shape": list(x.shape), "data_offsets": span}
    header = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file, ThreadPoolExecutor(1) as thread:

        def put(offset: int, data: bytes | memoryview) -> None:
            file.seek(offset)
            file.write(data)

        writing = thread.submit(put, 0, len(header).to_bytes(8, "little") + header)
        for name in lazy.by_origin(tensors):
            data = as_bytes(tensors[name])
            writing.result()
            offset = 8 + len(header) + entries[name]["data_offsets"][0]
            writing = thread.submit(put, offset, data)
        writing.result()
        file.truncate(8 + len(header) + end)


def as_bytes(x: np.ndarray | lazy.Lazy) -> memoryview:
    """The little-endian bytes of an array, in row-major order."""
    return memoryview(np.ascontiguousarray(x).reshape(-1).view(np.uint8))


def _header(path: Path) -> tuple[dict[str, Any], int, list[str]]:
    """The entries by name, where the data begins, and what is wrong."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            return {}, 0, [f"truncated, {size} bytes are no safetensors file"]
        if length > _HEADER_LIMIT:
            return (
                {},
                0,
                [
                    f"not a safetensors file, or damaged (a header of {length} bytes; at most"
                    f" {_HEADER_LIMIT} are allowed)"
                ],
            )
        if length > size - 8:
            return {}, 0, [f"truncated, a header of {length} bytes in {size}"]
        raw = file.read(length)
    try:
        entries = json.loads(raw, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        return {}, 0, [f"the header is not JSON ({error})"]
    if not isinstance(entries, dict):
        return {}, 0, ["the header is not a JSON object"]
    entries.pop("__metadata__", None)
    return entries, 8 + length, [*_check_entries(entries, size - 8 - length)]


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name twice")
    return found


def _check_entries(entries: Mapping[str, Any], size: int) -> Iterator[str]:
    """What is wrong with the tensors that a header describes, in `size` bytes of data."""
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
    if not _counts(shape) or not _counts(offsets) or len(offsets) != 2:
        return f"has shape {shape!r} and data_offsets {offsets!r}, which make no sense"
    held, needed = offsets[1] - offsets[0], math.prod(shape) * np.dtype(_FLOATS[dtype]).itemsize
    if held != needed:
        return f"has {held} bytes; {dtype} {shape} needs {needed}"
    if len(shape) > 8 or needed == 0:
        return f"has shape {shape}; weights have up to 8 axes, none of them empty"
    return None


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)

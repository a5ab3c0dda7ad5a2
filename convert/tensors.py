"""Safetensors files, single and sharded: checked before they are read, so that damage has a name.

The library that reads them says no more than "incomplete metadata" about a truncated download, and
stops at the first problem. Here the headers are checked first, and everything wrong is said once.
"""

import json
import math
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import ml_dtypes  # noqa: F401  (makes numpy know bfloat16)
import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

from modernbert_jax import files
from modernbert_jax.errors import UserError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD_BYTES = 5 * 10**9
METADATA = {"format": "pt"}
"""transformers 4 refuses a file whose metadata says anything else."""

_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""The dtypes of weights, and their bytes."""

_HEADER_LIMIT = 100 * 2**20
"""Of the format's specification, against files that ask for absurd amounts of memory."""


def read(directory: Path) -> dict[str, np.ndarray]:
    """All tensors of the model in a directory, by name.

    Warns of weights that are not finite.

    Raises:
        UserError: no weights, pickled weights, or one message with all that is wrong with them.
    """
    shards, problems = _shards(directory)
    owner: dict[str, str] = {}
    for path, listed in shards.items():
        held, wrong = _check_file(path)
        problems += wrong
        if listed is not None and not wrong:
            problems += [f"{path.name}: has no {n}" for n in sorted(listed - held)]
            problems += [f"{path.name}: {n} is not in {INDEX}" for n in sorted(held - listed)]
        problems += [f"{n} is in {owner[n]} and {path.name}" for n in held if n in owner]
        owner |= dict.fromkeys(held, path.name)
    if problems:
        raise UserError(f"{directory}: {'; '.join(problems)}")
    tensors: dict[str, np.ndarray] = {}
    for path in shards:
        try:
            tensors |= load_file(path)
        except (OSError, safetensors.SafetensorError) as error:
            raise UserError(f"{path}: cannot be read ({error})") from None
    broken = [name for name, x in tensors.items() if not np.isfinite(x).all()]
    if broken:
        warnings.warn(f"{directory}: NaN or infinity in {', '.join(broken)}", stacklevel=2)
    return tensors


def write(
    directory: Path, tensors: Mapping[str, np.ndarray], shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes one file, or shards of at most `shard_bytes` with their index."""
    shards: list[dict[str, np.ndarray]] = [{}]
    room = shard_bytes
    for name, array in tensors.items():
        if array.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = array
        room -= array.nbytes
    if len(shards) == 1:
        save_file(shards[0], directory / SINGLE, metadata=METADATA)
        return
    where = {}
    for k, shard in enumerate(shards, start=1):
        file = f"model-{k:05}-of-{len(shards):05}.safetensors"
        save_file(shard, directory / file, metadata=METADATA)
        where |= dict.fromkeys(shard, file)
    totals = {
        "total_parameters": sum(x.size for x in tensors.values()),
        "total_size": sum(x.nbytes for x in tensors.values()),
    }
    files.write_json(directory / INDEX, {"metadata": totals, "weight_map": where})


def _shards(directory: Path) -> tuple[dict[Path, set[str] | None], list[str]]:
    """The files to read with the tensors that the index expects in each, and what is wrong."""
    if (directory / SINGLE).is_file():
        return {directory / SINGLE: None}, []
    if not (directory / INDEX).is_file():
        _refuse(directory)
    where = files.read_json(directory / INDEX).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(f, str) for f in where.values()):
        raise UserError(f"{directory / INDEX}: weight_map must map tensor names to file names")
    shards: dict[Path, set[str] | None] = {}
    problems = []
    for file in sorted(set(where.values())):
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file or not path.parts:
            problems.append(f"{INDEX} names {file!r}, which is not inside the directory")
        elif not (directory / path).is_file():
            problems.append(f"{file}: no such file, though {INDEX} names it")
        else:
            shards[directory / path] = {name for name, f in where.items() if f == file}
    return shards, problems


def _refuse(directory: Path) -> None:
    pickles = sorted(p.name for p in directory.glob("*.bin"))
    if pickles:
        raise UserError(
            f"{directory / pickles[0]}: pickled weights are not read by this version; load the"
            " model in transformers and save it again with safe_serialization=True"
        )
    raise UserError(f"{directory}: has neither {SINGLE} nor {INDEX}")


def _check_file(path: Path) -> tuple[set[str], list[str]]:
    """The names of a file's tensors, and everything wrong with its header and size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8:
            return set(), [f"{path.name}: truncated, {size} bytes are no safetensors file"]
        if length > _HEADER_LIMIT:
            return set(), [
                f"{path.name}: not a safetensors file, or damaged (a header of {length} bytes;"
                f" at most {_HEADER_LIMIT} are allowed)"
            ]
        if length > size - 8:
            return set(), [f"{path.name}: truncated, a header of {length} bytes in {size}"]
        raw = file.read(length)
    try:
        entries = json.loads(raw, object_pairs_hook=_no_twins)
    except (ValueError, RecursionError) as error:
        return set(), [f"{path.name}: the header is not JSON ({error})"]
    if not isinstance(entries, dict):
        return set(), [f"{path.name}: the header is not a JSON object"]
    entries.pop("__metadata__", None)
    return set(entries), [f"{path.name}: {p}" for p in _check_entries(entries, size - 8 - length)]


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
    held, needed = offsets[1] - offsets[0], math.prod(shape) * _FLOATS[dtype]
    if held != needed:
        return f"has {held} bytes; {dtype} {shape} needs {needed}"
    return None


def _counts(values: Any) -> bool:
    return isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)

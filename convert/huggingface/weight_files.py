"""Weights in a directory: safetensors or pickled, in one file or in shards with an index."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io import files
from modernbert_jax.io.json_reader import read_json

from .. import adapters, lazy
from ..torch_files import archives
from . import safetensors_file

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_INDEX = "pytorch_model.bin.index.json"

SHARD_BYTES = 5 * 10**9
"""Default size of a shard in bytes."""


def scan(directory: Path) -> dict[str, lazy.Lazy]:
    """All tensors in a directory by name, lazy; safetensors are preferred to pickled files.

    Raises:
        UserError: no weights, or one message with all problems of their files.
    """
    shards, problems = _shards(directory)
    tensors: dict[str, lazy.Lazy] = {}
    owner: dict[str, str] = {}
    for path in shards:
        content, wrong = _scan_file(path)
        problems += wrong
        problems += [f"{n} is in {owner[n]} and {path.name}" for n in content if n in owner]
        owner |= dict.fromkeys(content, path.name)
        tensors |= content
    if problems:
        raise UserError(f"{directory}: {'; '.join(problems)}")
    return tensors


def read(directory: Path) -> dict[str, np.ndarray]:
    """All tensors in a directory by name, in memory. Warns of weights that are not finite."""
    with lazy.finite(directory):
        return {name: np.asarray(x) for name, x in scan(directory).items()}


def write(
    directory: Path, tensors: Mapping[str, lazy.Array], shard_bytes: int = SHARD_BYTES
) -> None:
    """Write one safetensors file, or shards of at most `shard_bytes` with their index."""
    shards: list[dict[str, lazy.Array]] = [{}]
    room = shard_bytes
    for name, array in tensors.items():
        if array.nbytes > room and shards[-1]:
            shards.append({})
            room = shard_bytes
        shards[-1][name] = array
        room -= array.nbytes
    if len(shards) == 1:
        safetensors_file.write(directory / SINGLE, shards[0])
        return
    weight_map: dict[str, str] = {}
    for k, shard in enumerate(shards, start=1):
        file = f"model-{k:05}-of-{len(shards):05}.safetensors"
        safetensors_file.write(directory / file, shard)
        weight_map |= dict.fromkeys(shard, file)
    totals = {
        "total_parameters": sum(x.size for x in tensors.values()),
        "total_size": sum(x.nbytes for x in tensors.values()),
    }
    files.write_json(directory / INDEX, {"metadata": totals, "weight_map": weight_map})


def _scan_file(path: Path) -> tuple[dict[str, lazy.Lazy], list[str]]:
    """The tensors of a file, and its problems."""
    if path.suffix != ".bin":
        return safetensors_file.scan(path)
    try:
        return archives.state_dict(path), []
    except UserError as error:
        return {}, [str(error).removeprefix(f"{path.parent}/")]


def _shards(directory: Path) -> tuple[list[Path], list[str]]:
    """Files to read, and problems."""
    for single, index in ((SINGLE, INDEX), (PICKLE, PICKLE_INDEX)):
        if (directory / single).is_file():
            return [directory / single], []
        if (directory / index).is_file():
            return _read_index(directory, index)
    if (directory / adapters.CONFIG).is_file():
        raise UserError(adapters.refusal(directory))
    raise UserError(f"{directory}: has neither {SINGLE} nor {INDEX}, nor {PICKLE}")


def _read_index(directory: Path, index: str) -> tuple[list[Path], list[str]]:
    """The files that an index names, and problems.

    Which tensor is in which file is not read from it: as in transformers all that the files hold
    counts, and the table of names tells what is missing.
    """
    weight_map = read_json(directory / index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise UserError(f"{directory / index}: weight_map must map tensor names to file names")
    shards, problems = [], []
    suffix = Path(index.removesuffix(".index.json")).suffix
    for file in sorted(set(weight_map.values())):
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or "\\" in file or not path.parts:
            problems.append(f"{index} names {file!r}, which is not inside the directory")
        elif path.suffix != suffix:
            problems.append(f"{index} names {file!r}, which is not a {suffix} file")
        elif "\0" in file or not (directory / path).is_file():
            problems.append(f"{file}: no such file, though {index} names it")
        else:
            shards.append(directory / path)
    return shards, problems

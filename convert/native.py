"""The project's own directory, format `jax`: parameters by Orbax, the rest as readable files.

`config.json` is the Hugging Face one. The marker `modernbert_jax.json` holds what a foreign
directory had and ours has not, so that writing that directory again changes no bit. Orbax reads
altered bytes without an error; therefore `params/` holds checksums of its files.
"""

import dataclasses
import errno
import functools
import math
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io import checksums, files, orbax_files
from modernbert_jax.io.json_reader import read_json

from . import huggingface, names, native_arrays
from .checkpoint import Checkpoint, Layout, loaded

MARKER = "modernbert_jax.json"
PARAMS = "params"

VERSION = 2
"""Version of directories that are written. Version 1 had CRC-32 checksums in the marker."""

SMALL_BYTES = 2**20
"""Size of the largest file whose checksum is compared before anything is read."""


def read(directory: Path) -> Checkpoint:
    """Read the checkpoint in a directory, with lazy arrays.

    Checksums of large files are compared while arrays are read; the last chunk of arrays is
    returned only if they match.

    Raises:
        UserError: all problems of the directory.
    """
    marker = read_json(directory / MARKER)
    version = marker.get("version")
    if version not in (1, VERSION):
        raise UserError(
            f"{directory / MARKER}: version is {version!r}; this program reads 1 and {VERSION}"
        )
    config, extra, _ = huggingface.read_config(directory)
    try:
        layout = Layout(**marker["layout"])
        checkpoint = Checkpoint(
            config=config,
            params={},
            head=marker["head"],
            files=huggingface.read_carried(directory),
            extra=extra,
            layout=layout,
        )
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{directory / MARKER}: damaged ({error})") from None
    params = directory / PARAMS
    damage = _old_damage(params, marker.get("files")) if version == 1 else _damage(params)
    check = functools.partial(_check, params, damage)
    check(SMALL_BYTES)
    rows = checkpoint.rows(layout.prefix)
    return dataclasses.replace(checkpoint, params=native_arrays.read(params, rows, check))


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fill an existing, empty directory."""
    from orbax.checkpoint import v1 as ocp  # takes a second, and other formats do without

    names.check_params(checkpoint.params, checkpoint.rows(), "parameters")
    context = ocp.Context()
    # Random-looking numbers hardly compress, and a copy would hold the model twice in memory.
    context.array.saving.use_compression = False
    context.memory.deepcopy_host_arrays = False
    params = loaded(checkpoint).params
    orbax_files.quiet()
    try:
        with orbax_files.plain(directory) as plain, context:
            ocp.save(plain / PARAMS, params)
    except Exception as error:  # Orbax and TensorStore raise many types
        raise orbax_files.os_error(error) from error
    count = len(names.flatten(params))
    if (problem := orbax_files.index_damage(directory / PARAMS, count)) is not None:
        raise OSError(errno.EIO, f"cannot be read back: {problem}")
    checksums.write(directory / PARAMS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers does not read this directory
        files.write_json(directory / "config.json", huggingface.config_json(checkpoint))
    layout = dataclasses.asdict(checkpoint.layout)
    marker = {"version": VERSION, "head": checkpoint.head, "layout": layout}
    files.write_json(directory / MARKER, marker)
    for name, content in checkpoint.files.items():
        (directory / name).parent.mkdir(exist_ok=True, parents=True)
        (directory / name).write_bytes(content)


Damage = Callable[[float], str | None]
"""Describes the damage of files; hashes those with at most so many bytes."""


def _check(params: Path, damage: Damage, largest: float = math.inf) -> None:
    if (problem := damage(largest)) is not None:
        raise UserError(f"{params}: incomplete or damaged: {problem}")


def _damage(params: Path) -> Damage:
    if not (params / checksums.FILE).is_file():
        return lambda largest: f"{checksums.FILE} is missing"
    return functools.partial(checksums.damage, params)


def _old_damage(params: Path, recorded: Any) -> Damage:
    """Damage according to the marker of version 1, {path: [size, CRC-32]}."""
    if not isinstance(recorded, dict) or not recorded:
        return lambda largest: f"{MARKER} lists no files"
    for name, facts in recorded.items():
        if not isinstance(facts, list) or [type(x) for x in facts] != [int, int]:
            problem = f"{MARKER} has no size and checksum of {name}"
            return lambda largest: problem
    expected = {name: (size, str(crc)) for name, (size, crc) in recorded.items()}
    return lambda largest: (
        "; ".join(checksums.differences(params, expected, _crc32, largest)) or None
    )


def _crc32(path: Path) -> str:
    with path.open("rb") as file:
        blocks = iter(functools.partial(file.read, 2**24), b"")
        return str(functools.reduce(lambda crc, block: zlib.crc32(block, crc), blocks, 0))

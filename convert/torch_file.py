"""Files of `torch.save` without torch: a zip archive of one pickle and the numbers beside it.

An archive is trusted with nothing. Its entries must be those that torch writes, stored as they
are, side by side, each within the file; tensors are read from there when they are used, and their
checksums are compared then.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from modernbert_jax.errors import UserError

from . import lazy, pickles
from .pickle_names import Tensor

_PICKLE, _ORDER = "data.pkl", "byteorder"
_ENTRY = re.compile(
    r"data\.pkl|version|byteorder|\.format_version|\.storage_alignment|data/\d+"
    r"|\.data/serialization_id"
)
_FLOATS = ("float64", "float32", "bfloat16", "float16")
_BLOCK = 2**24


class _Entry(NamedTuple):
    """Where an entry's bytes lie in the file, and their CRC-32."""

    offset: int
    size: int
    crc: int


class Archive:
    """An archive that has been checked, with what its pickle holds as `value`."""

    value: Any

    def __init__(self, path: Path):
        """Reads the pickle, and no numbers. Raises one `UserError` for all that is wrong."""
        self.path = path
        self._entries, problems = _entries(path)
        if problems:
            raise UserError(f"{path}: {'; '.join(problems)}")
        self._sound: set[str] = set()
        # torch can be told not to compute checksums; it writes zeros then.
        self._checked = any(entry.crc for entry in self._entries.values())
        order = self._small(_ORDER, 16) if _ORDER in self._entries else b"little"
        if order.strip() != b"little":
            raise UserError(f"{path}: byteorder is {ascii(order)[2:-1]}, not little")
        try:
            self.value = pickles.read(self._small(_PICKLE, pickles.BYTES))
        except UserError as error:
            raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None

    def tensors(self, found: Mapping[str, Any]) -> dict[str, lazy.Lazy]:
        """The tensors of a mapping by name. Raises one `UserError` for all that are none."""
        problems = [p for name, x in found.items() if (p := self._problem(name, x))]
        if problems:
            raise UserError(f"{self.path}: {'; '.join(problems)}")
        return {name: self._tensor(name, x) for name, x in found.items()}

    def _problem(self, name: Any, x: Any) -> str | None:
        if type(name) is not str or type(x) is not Tensor:
            return f"{name!r} is a {type(x).__name__}, not a tensor under a name"
        storage = x.storage
        if storage.dtype.name not in _FLOATS:
            return f"{name} has dtype {storage.dtype.name}; weights are {', '.join(_FLOATS)}"
        if 0 in x.shape:
            return f"{name} has shape {list(x.shape)}"
        entry = self._entries.get(f"data/{storage.key}")
        if entry is None:
            return f"{name}: data/{storage.key} is missing"
        needed = storage.size * storage.dtype.itemsize
        if entry.size != needed:
            return f"{name}: data/{storage.key} has {entry.size} bytes instead of {needed}"
        return None

    def _tensor(self, name: str, x: Tensor) -> lazy.Lazy:
        entry, width = self._entries[f"data/{x.storage.key}"], x.storage.dtype.itemsize
        end = x.offset + 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride, strict=True))
        whole = x.offset == 0 and end == x.storage.size

        def read() -> np.ndarray:
            if not whole:
                self._check(x.storage.key)
            start = entry.offset + x.offset * width
            data = _read(self.path, start, (end - x.offset) * width)
            if whole and self._checked and zlib.crc32(data) != entry.crc:
                self._damaged()
            strides = [width * s for s in x.stride]
            numbers = data.view(x.storage.dtype)
            return np.lib.stride_tricks.as_strided(numbers, x.shape, strides, writeable=False)

        return lazy.source(name, x.shape, x.storage.dtype, read, key=(self.path, x))

    def _check(self, key: str) -> None:
        """Compares the checksum of a storage of which only a part is used, once."""
        if self._checked and key not in self._sound:
            if not self._matches(f"data/{key}"):
                self._damaged()
            self._sound.add(key)

    def _matches(self, name: str) -> bool:
        entry, crc = self._entries[name], 0
        for at in range(0, entry.size, _BLOCK):
            size = min(_BLOCK, entry.size - at)
            crc = zlib.crc32(_read(self.path, entry.offset + at, size), crc)
        return crc == entry.crc

    def _damaged(self) -> None:
        bad = [n for n in self._entries if n.startswith("data/") and not self._matches(n)]
        raise UserError(f"{self.path}: damaged: the checksums of {', '.join(bad)} do not match")

    def _small(self, name: str, most: int) -> bytes:
        entry = self._entries[name]
        if entry.size > most:
            raise UserError(
                f"{self.path}: {name} has {entry.size:,} bytes; at most {most:,} are read"
            )
        data = _read(self.path, entry.offset, entry.size).tobytes()
        if self._checked and zlib.crc32(data) != entry.crc:
            raise UserError(f"{self.path}: damaged: the checksum of {name} does not match")
        return data


def state_dict(path: Path) -> dict[str, lazy.Lazy]:
    """The tensors of a file that holds nothing but a model's weights by name."""
    archive = Archive(path)
    if type(archive.value) is not dict:
        raise UserError(f"{path}: holds a {type(archive.value).__name__}, not tensors by name")
    return archive.tensors(archive.value)


def _read(path: Path, offset: int, size: int) -> np.ndarray:
    try:
        data = np.fromfile(path, np.uint8, size, offset=offset)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if data.size < size:
        raise UserError(f"{path}: ended while it was being read")
    return data


def _entries(path: Path) -> tuple[dict[str, _Entry], list[str]]:
    """The archive's entries by their names below its folder, and everything wrong with them."""
    try:
        with path.open("rb") as file:
            start, size = file.read(4), path.stat().st_size
            if start.startswith(b"\x80"):
                return {}, ["a bare pickle, as before torch 1.6; load and save it again in torch"]
            if start != b"PK\x03\x04":
                return {}, ["not a file of torch.save, or damaged"]
            with zipfile.ZipFile(file) as archive:
                infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
            offsets = [_data_offset(file, info) for info in infos]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        return {}, [f"truncated or damaged ({error})"]
    found: dict[str, _Entry] = {}
    problems = []
    root, reached = infos[0].filename.partition("/")[0] if infos else "", 0
    for info, offset in zip(infos, offsets, strict=True):
        name, shown = info.filename.removeprefix(f"{root}/"), ascii(info.filename[:80])
        if name == "constants.pkl" or name.startswith("code/"):
            return {}, ["a TorchScript program, not weights"]
        if info.filename == name or not _ENTRY.fullmatch(name):
            problems.append(f"entry {shown} is none that torch.save writes")
        elif name in found:
            problems.append(f"entry {shown} is there twice")
        elif info.flag_bits & 1:
            problems.append(f"entry {shown} is encrypted")
        elif info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            problems.append(f"entry {shown} is compressed")
        elif offset is None:
            problems.append(f"entry {shown} has no header where the archive says")
        elif info.header_offset < reached:
            problems.append(f"entry {shown} overlaps another")
        elif (end := offset + info.file_size) > size:
            problems.append(f"entry {shown} ends after the file")
        else:
            found[name], reached = _Entry(offset, info.file_size, info.CRC), end
    if not problems and _PICKLE not in found:
        problems.append(f"has no {_PICKLE}")
    return found, problems


def _data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int | None:
    """Where an entry's bytes begin, by the header in front of them."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        return None
    name, extra = struct.unpack("<HH", header[26:])
    if file.read(name) != info.orig_filename.encode("utf-8", "surrogateescape"):
        return None
    return info.header_offset + 30 + name + extra

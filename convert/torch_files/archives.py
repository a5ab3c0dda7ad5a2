"""Read files of `torch.save` without torch: a zip archive of one pickle and raw numbers.

An archive is not trusted. Its entries must be those that torch writes, uncompressed, without
overlaps, and inside the file. Tensors are read from there when they are used, and their checksums
are compared then.
"""

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError

from .. import array_bytes, lazy
from . import pickles, zip_entries
from .pickle_names import Tensor

_ORDER = "byteorder"
_FLOATS = ("float64", "float32", "bfloat16", "float16")
_BLOCK = 2**24
"""Bytes of a storage that are read at once for its checksum."""


class Archive:
    """A checked archive.

    Attributes:
        path: of the file.
        value: the content of its pickle, with `Tensor` descriptions in place of tensors.
    """

    value: Any

    def __init__(self, path: Path):
        """Read the pickle, but no numbers. Raises one `UserError` for all problems."""
        self.path = path
        self._entries, problems = zip_entries.scan(path)
        if problems:
            raise UserError(f"{path}: {'; '.join(problems)}")
        self._verified: set[str] = set()
        # torch writes zeros when it is set not to compute checksums.
        self._has_checksums = any(entry.crc for entry in self._entries.values())
        order = self._small(_ORDER, 16) if _ORDER in self._entries else b"little"
        if order.strip() != b"little":
            raise UserError(f"{path}: byteorder is {ascii(order)[2:-1]}, not little")
        try:
            self.value = pickles.read(self._small(zip_entries.PICKLE, pickles.BYTES))
        except UserError as error:
            raise UserError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None

    def tensors(self, described: Mapping[str, Any]) -> dict[str, lazy.Lazy]:
        """Lazy tensors of a mapping by name. Raises one `UserError` for all that are invalid."""
        problems = [p for name, x in described.items() if (p := self._problem(name, x))]
        if problems:
            raise UserError(f"{self.path}: {'; '.join(problems)}")
        return {name: self._tensor(name, x) for name, x in described.items()}

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
                self._verify_storage(x.storage.key)
            start = entry.offset + x.offset * width
            data = array_bytes.read(self.path, start, (end - x.offset) * width)
            if whole and self._has_checksums and zlib.crc32(data.data) != entry.crc:
                raise self._damaged()
            strides = [width * s for s in x.stride]
            numbers = data.view(x.storage.dtype)
            return np.lib.stride_tricks.as_strided(numbers, x.shape, strides, writeable=False)

        return lazy.source(name, x.shape, x.storage.dtype, read, key=(self.path, x))

    def _verify_storage(self, key: str) -> None:
        """Compare the checksum of a storage of which only a part is used, once."""
        if self._has_checksums and key not in self._verified:
            if not self._matches(f"data/{key}"):
                raise self._damaged()
            self._verified.add(key)

    def _matches(self, name: str) -> bool:
        entry, crc = self._entries[name], 0
        for at in range(0, entry.size, _BLOCK):
            size = min(_BLOCK, entry.size - at)
            crc = zlib.crc32(array_bytes.read(self.path, entry.offset + at, size).data, crc)
        return crc == entry.crc

    def _damaged(self) -> UserError:
        bad = [n for n in self._entries if n.startswith("data/") and not self._matches(n)]
        return UserError(f"{self.path}: damaged: the checksums of {', '.join(bad)} do not match")

    def _small(self, name: str, most: int) -> bytes:
        """The content of an entry of at most so many bytes."""
        entry = self._entries[name]
        if entry.size > most:
            raise UserError(
                f"{self.path}: {name} has {entry.size:,} bytes; at most {most:,} are read"
            )
        data = array_bytes.read(self.path, entry.offset, entry.size).tobytes()
        if self._has_checksums and zlib.crc32(data) != entry.crc:
            raise UserError(f"{self.path}: damaged: the checksum of {name} does not match")
        return data


def state_dict(path: Path) -> dict[str, lazy.Lazy]:
    """The tensors of a file that contains only a model's weights by name."""
    archive = Archive(path)
    if type(archive.value) is not dict:
        raise UserError(f"{path}: holds a {type(archive.value).__name__}, not tensors by name")
    return archive.tensors(archive.value)

"""Write plain values and tensors for `torch.load(weights_only=True)`, without torch."""

import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from .. import array_bytes, lazy

_ROOT = "archive"
_ALIGNMENT = 64
"""Alignment in bytes of tensors within the file, so that torch can map them into memory."""

_STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "bfloat16": "BFloat16Storage",
    "float16": "HalfStorage",
}
_LARGE = 2**31 - 1
"""Largest number of bytes for which zip uses 32-bit fields."""


def write(path: Path, value: Any) -> None:
    """Write a file, one tensor after the other.

    Args:
        path: of the file.
        value: dicts, lists, tuples, strings, bytes, numbers, None, and arrays, which may be lazy.
            An array that occurs twice is stored once.

    Raises:
        TypeError: a value of another type.
    """
    pickle = _Pickle()
    pickle.put(value)
    with path.open("wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_info("data.pkl"), b"\x80\x02" + bytes(pickle.out) + b".")
        archive.writestr(_info("byteorder"), b"little")
        for key in lazy.by_origin(pickle.arrays):
            array = pickle.arrays[key]
            large = array.nbytes > _LARGE
            info = _aligned(f"data/{key}", stream.tell(), large)
            with archive.open(info, "w", force_zip64=large) as entry:
                entry.write(array_bytes.view(array))
        archive.writestr(_info("version"), b"3\n")


class _Pickle:
    """The instructions that build a value, and the arrays that they refer to by key."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.arrays: dict[str, lazy.Array] = {}
        self._keys: dict[int, str] = {}

    def put(self, value: Any) -> None:
        kind = type(value)
        if value is None:
            self.out += b"N"
        elif kind is bool:
            self.out += b"\x88" if value else b"\x89"
        elif kind is int:
            self._int(value)
        elif kind is float:
            self.out += b"G" + struct.pack(">d", value)
        elif kind is str:
            text = value.encode()
            self.out += b"X" + struct.pack("<I", len(text)) + text
        elif kind is bytes:
            self._call("_codecs", "encode", value.decode("latin1"), "latin1")
        elif kind is tuple:
            self._tuple(*value)
        elif kind is list:
            self.out += b"](" if value else b"]"
            for item in value:
                self.put(item)
            self.out += b"e" if value else b""
        elif kind is dict:
            self.out += b"}(" if value else b"}"
            for item in value.items():
                self.put(item[0])
                self.put(item[1])
            self.out += b"u" if value else b""
        elif isinstance(value, np.ndarray | lazy.Lazy):
            self._tensor(value)
        else:
            raise TypeError(f"a value of type {kind.__name__} cannot be written")

    def _int(self, value: int) -> None:
        if -(2**31) <= value < 2**31:
            self.out += b"J" + struct.pack("<i", value)
            return
        size = value.bit_length() // 8 + 1
        self.out += bytes([0x8A, size]) + value.to_bytes(size, "little", signed=True)

    def _tuple(self, *values: Any) -> None:
        self.out += b"("
        for value in values:
            self.put(value)
        self.out += b"t"

    def _name(self, module: str, name: str) -> None:
        self.out += f"c{module}\n{name}\n".encode()

    def _call(self, module: str, name: str, *arguments: Any) -> None:
        self._name(module, name)
        self._tuple(*arguments)
        self.out += b"R"

    def _tensor(self, array: lazy.Array) -> None:
        key = self._keys.setdefault(id(array), str(len(self._keys)))
        self.arrays[key] = array
        strides = [1]
        for n in reversed(array.shape[1:]):
            strides.insert(0, strides[0] * n)
        self._name("torch._utils", "_rebuild_tensor_v2")
        self.out += b"(("
        self.put("storage")
        self._name("torch", _STORAGES[array.dtype.name])
        for name in (key, "cpu"):
            self.put(name)
        self.put(array.size)
        self.out += b"tQ"
        self.put(0)
        for sizes in (array.shape, tuple(strides[: len(array.shape)])):
            self.put(sizes)
        self.put(False)
        self._call("collections", "OrderedDict")
        self.out += b"tR"


def _info(name: str) -> zipfile.ZipInfo:
    """An entry without a time stamp, so that equal checkpoints give equal files."""
    return zipfile.ZipInfo(f"{_ROOT}/{name}")


def _aligned(name: str, at: int, large: bool) -> zipfile.ZipInfo:
    """An entry whose bytes begin at a multiple of `_ALIGNMENT`, by padding in its header."""
    info = _info(name)
    start = at + 30 + len(info.filename) + 4 + (20 if large else 0)
    padding = -start % _ALIGNMENT
    info.extra = struct.pack("<HH", 0x4246, padding) + bytes(padding)
    return info

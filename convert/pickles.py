"""Pickles read as data: a machine for the instructions that torch writes, and for no others.

Python's own unpickler imports what a file names and calls it. This one imports nothing. A name in
a pickle is looked up in `BUILDERS`, which makes tensors and plain containers, or else it is one of
the harmless names that training states hold, of which nothing is made at all; any other name ends
the reading. There is no recursion, and every size is checked before anything is made of it.
"""

import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  (makes numpy know bfloat16)
import numpy as np

from modernbert_jax.errors import UserError

BYTES = 128 * 2**20
"""The longest pickle; those of models with the largest tokenizers have a few tens of millions."""

STEPS = 12_000_000
"""The most instructions, each of which makes at most one small object."""


class Storage(NamedTuple):
    """A run of numbers beside the pickle, by the key that names it."""

    key: str
    dtype: np.dtype
    size: int


class Tensor(NamedTuple):
    """A view of a storage, in elements; it lies within."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class Inert:
    """What stands for an object that is not made."""


class _StorageType(NamedTuple):
    dtype: np.dtype


def read(data: bytes) -> Any:
    """The value of a pickle, of dicts, lists, tuples, strings, numbers and `Tensor`s.

    Raises:
        UserError: an instruction or a name that has no place in a checkpoint, or damage.
    """
    if len(data) > BYTES:
        raise UserError(f"a pickle of {len(data):,} bytes; at most {BYTES:,} are read")
    try:
        return _Machine(data).run()
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"a damaged pickle ({type(error).__name__}: {error})") from None


class _Machine:
    def __init__(self, data: bytes):
        self.data, self.at = data, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(STEPS):
            code = self.data[self.at]
            self.at += 1
            if code == _STOP:
                (value,) = self.stack
                return value
            step = _STEPS.get(code)
            if step is None:
                raise UserError(f"a pickle with instruction {bytes([code])!r}, which is not read")
            step(self)
        raise UserError(f"a pickle of more than {STEPS:,} instructions")

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self.data) - self.at:
            raise UserError("a truncated pickle")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form: str) -> Any:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return value

    def line(self) -> str:
        end = self.data.index(b"\n", self.at, self.at + 200)
        return self.take(end + 1 - self.at)[:-1].decode("ascii")

    def since_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        if mark > len(self.stack):
            raise UserError("a damaged pickle (a mark above the stack)")
        del self.stack[mark:]
        return items

    def top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise UserError(f"a pickle that fills a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def last(self, count: int) -> tuple[Any, ...]:
        if count > len(self.stack):
            raise UserError("a damaged pickle (an empty stack)")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is Inert:
            return
        found = self.top(dict)
        keys, values = items[::2], items[1::2]
        for key, value in zip(keys, values, strict=True):
            # Hashing nested tuples can take for ever, and no checkpoint has them as keys.
            if type(key) not in (str, int, float, bool, type(None)):
                raise UserError(f"a pickle with a {type(key).__name__} as key")
            found[key] = value

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not Inert:
            self.top(list).extend(items)

    def long(self) -> None:
        size = self.number("B")
        if size > 16:
            raise UserError(f"a pickle with a number of {size} bytes")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def find(self) -> None:
        name = f"{self.line()}.{self.line()}"
        if name in BUILDERS:
            self.stack.append(BUILDERS[name])
        elif name in _HARMLESS or name.partition(".")[0] in _HARMLESS_PACKAGES:
            self.stack.append(_inert)
        else:
            raise UserError(
                f"a pickle that names {ascii(name)[1:-1]}, which no model needs; nothing of it was"
                " executed"
            )

    def call(self) -> None:
        builder, arguments = self.last(2)
        if not callable(builder) or type(arguments) is not tuple:
            raise UserError(f"a pickle that calls a {type(builder).__name__}")
        self.stack.append(builder(*arguments))

    def build(self) -> None:
        """Attributes are dropped: containers have none that matter."""
        _, state = self.stack[-1], self.stack.pop()
        if type(self.stack[-1]) not in (dict, Inert) or type(state) not in (dict, tuple, Inert):
            raise UserError(f"a pickle that sets attributes of a {type(self.stack[-1]).__name__}")

    def persistent(self) -> None:
        what, kind, key, _, size = self.stack.pop()
        if what != "storage" or type(kind) is not _StorageType or type(key) is not str:
            raise UserError("a pickle with a reference to something else than a storage")
        if type(size) is not int or size < 0:
            raise UserError(f"a pickle with a storage of {size!r} elements")
        self.stack.append(Storage(key, kind.dtype, size))


_STOP = ord(".")
_STEPS: dict[int, Callable[[_Machine], Any]] = {
    ord(b"}"): lambda m: m.stack.append({}),
    ord(b"]"): lambda m: m.stack.append([]),
    ord(b")"): lambda m: m.stack.append(()),
    ord(b"("): lambda m: m.marks.append(len(m.stack)),
    ord(b"N"): lambda m: m.stack.append(None),
    0x88: lambda m: m.stack.append(True),
    0x89: lambda m: m.stack.append(False),
    ord(b"K"): lambda m: m.stack.append(m.number("B")),
    ord(b"M"): lambda m: m.stack.append(m.number("<H")),
    ord(b"J"): lambda m: m.stack.append(m.number("<i")),
    ord(b"G"): lambda m: m.stack.append(m.number(">d")),
    0x8A: _Machine.long,
    ord(b"X"): lambda m: m.stack.append(m.take(m.number("<I")).decode()),
    ord(b"t"): lambda m: m.stack.append(tuple(m.since_mark())),
    0x85: lambda m: m.stack.append(m.last(1)),
    0x86: lambda m: m.stack.append(m.last(2)),
    0x87: lambda m: m.stack.append(m.last(3)),
    ord(b"s"): lambda m: m.set_items([*m.last(2)]),
    ord(b"u"): lambda m: m.set_items(m.since_mark()),
    ord(b"a"): lambda m: m.append([*m.last(1)]),
    ord(b"e"): lambda m: m.append(m.since_mark()),
    ord(b"q"): lambda m: m.memo.__setitem__(m.number("B"), m.stack[-1]),
    ord(b"r"): lambda m: m.memo.__setitem__(m.number("<I"), m.stack[-1]),
    ord(b"h"): lambda m: m.stack.append(m.memo[m.number("B")]),
    ord(b"j"): lambda m: m.stack.append(m.memo[m.number("<I")]),
    ord(b"c"): _Machine.find,
    ord(b"R"): _Machine.call,
    0x81: _Machine.call,
    ord(b"b"): _Machine.build,
    ord(b"Q"): _Machine.persistent,
    0x80: lambda m: _protocol(m.number("B")),
}
"""What torch writes, which is protocol 2."""


def _protocol(version: int) -> None:
    if version != 2:
        raise UserError(f"a pickle of protocol {version}; torch writes 2")


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    """A tensor's description, once it is known to lie within its storage."""
    if type(storage) is not Storage or type(shape) is not tuple or type(stride) is not tuple:
        raise UserError("a pickle with a tensor that has no storage, shape or stride")
    numbers = (offset, *shape, *stride)
    if len(shape) != len(stride) or len(shape) > 8:
        raise UserError(f"a pickle with a tensor of {len(shape)} axes and {len(stride)} strides")
    if not all(type(n) is int and 0 <= n < 2**48 for n in numbers):
        raise UserError("a pickle with a tensor whose sizes make no sense")
    end, count = offset, 1
    for n, step in zip(shape, stride, strict=True):
        end, count = end + (n - 1) * step, count * n
    if 0 in shape:
        end = offset - 1
    # More elements than the storage has would be one number many times over.
    if end >= storage.size or count > storage.size:
        raise UserError(
            f"a pickle with a tensor {list(shape)} beyond its storage of {storage.size} elements"
        )
    return Tensor(storage, offset, shape, stride)


def _parameter(data: Any, *_: Any) -> Tensor:
    if type(data) is not Tensor:
        raise UserError("a pickle with a parameter that is no tensor")
    return data


def _mapping(*arguments: Any) -> dict:
    """Ordered and default dicts, which are pickled empty and filled afterwards."""
    return {}


def _encoded(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding != "latin1":
        raise UserError("a pickle that encodes something else than latin1")
    return text.encode("latin1")


def _size(sizes: Any = ()) -> tuple:
    if type(sizes) is not tuple:
        raise UserError("a pickle with a size that is no tuple")
    return sizes


def _inert(*_: Any) -> Inert:
    return Inert()


_DTYPES = {
    "Double": "float64",
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
}

BUILDERS: dict[str, Any] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "collections.OrderedDict": _mapping,
    "collections.defaultdict": _mapping,
    "_codecs.encode": _encoded,
    **{f"torch.{name}Storage": _StorageType(np.dtype(d)) for name, d in _DTYPES.items()},
}
"""Every name of which something is made, and what makes it."""

_HARMLESS = {
    "__builtin__.bytearray",
    "__builtin__.complex",
    "__builtin__.frozenset",
    "__builtin__.list",
    "__builtin__.set",
    "__builtin__.slice",
    "datetime.datetime",
    "datetime.timedelta",
    "datetime.timezone",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.device",
    "torch.torch_version.TorchVersion",
    *(f"torch.{name}" for name in ("float32", "float16", "bfloat16", "float64", "int64", "bool")),
}
_HARMLESS_PACKAGES = ("composer", "torchmetrics")
"""Names of a training run's state: clocks, random numbers, metrics. They are not even imported."""

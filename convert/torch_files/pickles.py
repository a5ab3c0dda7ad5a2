"""Read pickles as data: an interpreter for the instructions that torch writes, and no others.

Python's own unpickler imports and calls whatever a file names. This one imports nothing. A name in
a pickle is looked up in `BUILDERS`, which build tensors and plain containers. Harmless names of a
training state give an `Inert` placeholder; any other name is an error. There is no recursion, and
every size is checked before memory is allocated.
"""

import struct
from collections.abc import Callable
from typing import Any

from modernbert_jax.errors import UserError

from .pickle_names import BUILDERS, HARMLESS, HARMLESS_PACKAGES, Inert, Storage, StorageType

BYTES = 128 * 2**20
"""Largest pickle in bytes; models with the largest tokenizers have a few tens of millions."""

INSTRUCTIONS = 12_000_000
"""Largest number of instructions, each of which builds at most one small object."""

DEPTH = 200
"""Nesting of containers at most; training states have 20."""

ARGUMENTS = 64
"""Arguments of a call at most; torch's have ten."""

_KEY_BITS = 60
"""Bits of an integer key; longer ones may have the same hash, which makes dicts slow."""

_CONTAINERS = (dict, list, tuple)


def read(data: bytes) -> Any:
    """The value of a pickle: dicts, lists, tuples, strings, numbers and `Tensor` descriptions.

    Raises:
        UserError: an instruction or a name that no checkpoint needs, or damage.
    """
    if len(data) > BYTES:
        raise UserError(f"a pickle of {len(data):,} bytes; at most {BYTES:,} are read")
    try:
        value = _Interpreter(data).run()
    except (IndexError, KeyError, TypeError, ValueError, struct.error) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"a damaged pickle ({type(error).__name__}: {error})") from None
    _check_nesting(value)
    return value


def _check_nesting(value: Any) -> None:
    """Raise `UserError` for a value that is endless or huge when it is copied or printed.

    A pickle of a few bytes builds a list that holds the same list twice, 40 deep, or itself.
    """
    sizes: dict[int, int | None] = {}  # of finished containers, with all that they hold
    depth = 0
    stack: list[tuple[Any, bool]] = [(value, False)]
    while stack:
        node, is_finished = stack.pop()
        inner = [*node.keys(), *node.values()] if type(node) is dict else node
        if is_finished:
            depth -= 1
            nested = (sizes[id(x)] or 0 for x in inner if type(x) in _CONTAINERS)
            sizes[id(node)] = size = 1 + len(inner) + sum(nested)
            if size > INSTRUCTIONS:
                raise UserError(f"a pickle of more than {INSTRUCTIONS:,} objects")
        elif type(node) in _CONTAINERS and sizes.get(id(node)) is None:
            if id(node) in sizes:
                raise UserError("a pickle with a container that holds itself")
            depth += 1
            if depth > DEPTH:
                raise UserError(f"a pickle that is nested more than {DEPTH} deep")
            sizes[id(node)] = None  # begun
            stack.append((node, True))
            stack += [(x, False) for x in inner if type(x) in _CONTAINERS]


class _Interpreter:
    """The stack, the marks and the memo of the pickle protocol."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.encoded = 0  # bytes that calls have built, perhaps of one text many times

    def run(self) -> Any:
        for _ in range(INSTRUCTIONS):
            code = self.data[self.at]
            self.at += 1
            if code == _STOP:
                (value,) = self.stack
                return value
            action = _ACTIONS.get(code)
            if action is None:
                raise UserError(f"a pickle with the unsupported instruction {bytes([code])!r}")
            action(self)
        raise UserError(f"a pickle of more than {INSTRUCTIONS:,} instructions")

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
        target = self.top(dict)
        keys, values = items[::2], items[1::2]
        for key, value in zip(keys, values, strict=True):
            # Hashing nested tuples can take very long, and no checkpoint has them as keys.
            if type(key) not in (str, int, float, bool, type(None)):
                raise UserError(f"a pickle with a {type(key).__name__} as key")
            if type(key) is int and key.bit_length() > _KEY_BITS:
                raise UserError(f"a pickle with a key of more than {_KEY_BITS} bits")
            target[key] = value

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
        elif name in HARMLESS or name.partition(".")[0] in HARMLESS_PACKAGES:
            self.stack.append(Inert.build)
        else:
            raise UserError(
                f"a pickle that names {ascii(name)[1:-1]}, which no model needs; nothing of it was"
                " executed"
            )

    def call(self) -> None:
        builder, arguments = self.last(2)
        if not callable(builder) or type(arguments) is not tuple:
            raise UserError(f"a pickle that calls a {type(builder).__name__}")
        if len(arguments) > ARGUMENTS:
            raise UserError(f"a pickle that calls something with {len(arguments):,} arguments")
        result = builder(*arguments)
        if type(result) is bytes:
            self.encoded += len(result)
            if self.encoded > BYTES:
                raise UserError(f"a pickle that encodes more than {BYTES:,} bytes")
        self.stack.append(result)

    def build(self) -> None:
        """Drop attributes: those of containers do not matter."""
        _, state = self.stack[-1], self.stack.pop()
        if type(self.stack[-1]) not in (dict, Inert) or type(state) not in (dict, tuple, Inert):
            raise UserError(f"a pickle that sets attributes of a {type(self.stack[-1]).__name__}")

    def persistent(self) -> None:
        label, kind, key, _, size = self.stack.pop()
        if label != "storage" or type(kind) is not StorageType or type(key) is not str:
            raise UserError("a pickle with a reference to something other than a storage")
        if type(size) is not int or size < 0:
            shown = size if type(size) is int else f"a {type(size).__name__} of"
            raise UserError(f"a pickle with a storage of {shown} elements")
        self.stack.append(Storage(key, kind.dtype, size))


_STOP = ord(".")
_ACTIONS: dict[int, Callable[[_Interpreter], Any]] = {
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
    0x8A: _Interpreter.long,
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
    ord(b"c"): _Interpreter.find,
    ord(b"R"): _Interpreter.call,
    0x81: _Interpreter.call,
    ord(b"b"): _Interpreter.build,
    ord(b"Q"): _Interpreter.persistent,
    0x80: lambda m: _protocol(m.number("B")),
}
"""Actions of the instructions that torch writes, which are those of protocol 2."""


def _protocol(version: int) -> None:
    if version != 2:
        raise UserError(f"a pickle of protocol {version}; torch writes 2")

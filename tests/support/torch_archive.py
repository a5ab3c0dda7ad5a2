"""Archives in the layout of `torch.save`, and malicious pickles, made without torch."""

import os
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ONE = (
    b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
    b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x06tQ"
    b"K\x00K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtRs."
)
"""Pickle of {"a": a float32 tensor [2, 3]} that covers all of storage 0."""

SIX = struct.pack("<6f", *range(6))


def write(
    path: Path, data: bytes = ONE, entries: Mapping[str, bytes] | None = None, **more: bytes
) -> Path:
    """Write an archive with a pickle, entries in its folder, and `more` at the top level."""
    entries = {"data/0": SIX} if entries is None else entries
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for name, content in {"byteorder": b"little", **entries, "version": b"3\n"}.items():
            archive.writestr(f"archive/{name}", content)
        for name, content in more.items():
            archive.writestr(name, content)
    return path


def tensor(
    shape: tuple[Any, ...] = (2, 3),
    stride: tuple[Any, ...] = (3, 1),
    offset: Any = 0,
    key: str = "0",
    size: Any = 6,
    kind: str = "FloatStorage",
) -> bytes:
    """Return the pickle of {"a": a tensor} with any numbers."""

    def put(value: Any) -> bytes:
        return pickle.dumps(value, 2)[2:-1]

    return (
        b"\x80\x02}"
        + put("a")
        + b"ctorch._utils\n_rebuild_tensor_v2\n(("
        + put("storage")
        + f"ctorch\n{kind}\n".encode()
        + put(key)
        + put("cpu")
        + put(size)
        + b"tQ"
        + put(offset)
        + put(shape)
        + put(stride)
        + b"\x89ccollections\nOrderedDict\n)RtRs."
    )


class Command:
    """An object whose pickle runs a command when Python loads it."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def malicious(canary: Path) -> dict[str, bytes]:
    """Return pickles that create the file `canary` if executed, or need too much memory."""
    touch = f"touch {canary}"
    text = f"open({str(canary)!r}, 'w')"
    call = pickle.dumps(text, 2)[2:-1]
    shell = pickle.dumps(touch, 2)[2:-1]
    twice = b"".join(b"(h%ch%ctq%c" % (i, i, i + 1) for i in range(60))
    lists = b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))
    return {
        "reduce, protocol 2": pickle.dumps({"a": Command(touch)}, 2),
        "reduce, protocol 4": pickle.dumps({"a": Command(touch)}, 4),
        "reduce, protocol 0": pickle.dumps({"a": Command(touch)}, 0),
        "eval": b"\x80\x02c__builtin__\neval\n" + call + b"\x85R.",
        "eval by its new name": b"\x80\x02cbuiltins\neval\n" + call + b"\x85R.",
        "an attribute of torch": b"\x80\x02ctorch\nos.system\n" + shell + b"\x85R.",
        "torch.load": b"\x80\x02ctorch\nload\n" + shell + b"\x85R.",
        "a name alone": b"\x80\x02cposix\nsystem\n.",
        "getattr": b"\x80\x02c__builtin__\ngetattr\n" + shell + b"\x85R.",
        "newobj": b"\x80\x02csubprocess\nPopen\n" + shell + b"\x85\x81.",
        "inst": b"\x80\x02(" + shell + b"iposix\nsystem\n.",
        "obj": b"\x80\x02(cposix\nsystem\n" + shell + b"o.",
        "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + shell + b"\x85R.",
        "extension": b"\x80\x02\x82\x01.",
        "build of a dict's attributes": b"\x80\x02}cposix\nsystem\nb.",
        "build of a tensor": ONE[:-2] + b"}b.",
        "build of a list": b"\x80\x02]}b.",
        "call of a dict": b"\x80\x02}" + shell + b"\x85R.",
        "call of a harmless name's result": b"\x80\x02cdatetime\ntimedelta\n)R" + shell + b"\x85R.",
        "call of a storage type": b"\x80\x02ctorch\nFloatStorage\n" + shell + b"\x85R.",
        "codec": b"\x80\x02c_codecs\nencode\n" + shell + pickle.dumps("rot13", 2)[2:-1] + b"\x86R.",
        "reference to something else": b"\x80\x02" + shell + b"Q.",
        "reference by name": b"\x80\x02Pwhatever\n.",
        "tuples as key": b"\x80\x02})q\x00" + twice + b"h\x3cK\x01s.",
        "lists without end": b"\x80\x02]q\x00" + lists + b".",
        "a list in itself": b"\x80\x02]q\x00h\x00a.",
        "depth of lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
        "depth of tuples": b"\x80\x02)" + b"\x85" * 100_000 + b".",
        "a long number": b"\x80\x02\x8a\xff" + b"\x7f" * 255 + b".",
        "a longer number": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\x7f" * 255 + b".",
        "a text of 4 GB": b"\x80\x02X\xff\xff\xff\xffab.",
        "a frame of exabytes": b"\x80\x02\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "nothing": b"",
        "no end": b"\x80\x02}",
        "an empty stack": b"\x80\x02\x86.",
        "no mark": b"\x80\x02}u.",
        "a mark below": b"\x80\x02]]((00e.",
        "unknown memo": b"\x80\x02h\x07.",
        "two values": b"\x80\x02}}.",
        "no text": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
        "tensor beyond its storage": tensor(offset=1),
        "tensor with huge strides": tensor(stride=(2**40, 1)),
        "tensor with more elements than its storage": tensor(shape=(10**6, 10**6), stride=(0, 0)),
        "tensor of negative size": tensor(shape=(-2, -3)),
        "tensor of negative offset": tensor(offset=-1),
        "tensor with negative strides": tensor(stride=(-3, -1), offset=5),
        "tensor of absurd size": tensor(shape=(2**62, 2**62), size=2**62),
        "tensor with floats for sizes": tensor(shape=(2.0, 3.0)),
        "tensor with one stride": tensor(stride=(1,)),
        "tensor of many axes": tensor(shape=(1,) * 40, stride=(1,) * 40),
        "storage that is not there": tensor(key="7"),
        "storage by a path": tensor(key="../../etc/passwd"),
        "storage of another size": tensor(size=7),
        "storage of negative size": tensor(size=-6),
        "storage of integers": tensor(kind="LongStorage", size=3, shape=(3,), stride=(1,)),
        "storage of an unknown kind": tensor(kind="ComplexFloatStorage"),
    }

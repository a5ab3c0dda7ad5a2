"""The entries of a zip archive of torch, accepted only as torch writes them."""

import re
import struct
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from modernbert_jax.io import lfs

PICKLE = "data.pkl"

_NAMES = re.compile(
    r"data\.pkl|version|byteorder|\.format_version|\.storage_alignment|data/\d+"
    r"|\.data/serialization_id"
)
_LOCAL_HEADER = b"PK\x03\x04"


class Entry(NamedTuple):
    """Offset of an entry's bytes in the file, their number, and their CRC-32."""

    offset: int
    size: int
    crc: int


def scan(path: Path) -> tuple[dict[str, Entry], list[str]]:
    """The entries of an archive by their names in its top folder, and all their problems."""
    try:
        with path.open("rb") as file:
            beginning, size = file.read(len(lfs.BEGINNING)), path.stat().st_size
            if lfs.is_pointer(beginning):
                return {}, [lfs.PROBLEM]
            start = beginning[:4]
            if start.startswith(b"\x80"):
                return {}, ["a bare pickle, as before torch 1.6; load and save it again in torch"]
            if start != _LOCAL_HEADER:
                return {}, ["not a file of torch.save, or damaged"]
            with zipfile.ZipFile(file) as archive:
                infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
            offsets = [_data_offset(file, info) for info in infos]
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        return {}, [f"truncated or damaged ({error})"]
    entries: dict[str, Entry] = {}
    problems = []
    root, reached = infos[0].filename.partition("/")[0] if infos else "", 0
    for info, offset in zip(infos, offsets, strict=True):
        name, shown = info.filename.removeprefix(f"{root}/"), ascii(info.filename[:80])
        if name == "constants.pkl" or name.startswith("code/"):
            return {}, ["a TorchScript program, not weights"]
        if info.filename == name or not _NAMES.fullmatch(name):
            problems.append(f"entry {shown} is none that torch.save writes")
        elif name in entries:
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
            entries[name], reached = Entry(offset, info.file_size, info.CRC), end
    if not problems and PICKLE not in entries:
        problems.append(f"has no {PICKLE}")
    return entries, problems


def _data_offset(file: BinaryIO, info: zipfile.ZipInfo) -> int | None:
    """Offset of an entry's bytes according to its local header; None if that does not match."""
    file.seek(info.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != _LOCAL_HEADER:
        return None
    name, extra = struct.unpack("<HH", header[26:])
    if file.read(name) != info.orig_filename.encode("utf-8", "surrogateescape"):
        return None
    return info.header_offset + 30 + name + extra

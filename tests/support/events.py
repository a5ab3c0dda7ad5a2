"""Reads TensorBoard's files of events, checks and all."""

import struct
from pathlib import Path

from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c


def read(folder: Path) -> list[event_pb2.Event]:
    """The events of all files in a folder, in the order of their names."""
    return [event for file in sorted(folder.iterdir()) for event in read_file(file)]


def read_file(file: Path) -> list[event_pb2.Event]:
    """The events of a file; an assertion fails where it is not what TensorBoard reads."""
    content, at, found = file.read_bytes(), 0, []
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        header, data = content[at : at + 8], content[at + 12 : at + 12 + size]
        for offset, checked in ((8, header), (12 + size, data)):
            assert struct.unpack_from("<I", content, at + offset)[0] == masked_crc32c(checked)
        found.append(event_pb2.Event.FromString(data))
        at += 16 + size
    assert at == len(content) and found[0].file_version == "brain.Event:2"
    return found

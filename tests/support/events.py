"""Reader of TensorBoard's event files that verifies their checksums."""

import struct
from pathlib import Path

from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c


def read(folder: Path) -> list[event_pb2.Event]:
    """Return the events of all files in a folder, in the order of their names."""
    return [event for file in sorted(folder.iterdir()) for event in read_file(file)]


def read_file(file: Path) -> list[event_pb2.Event]:
    """Return the events of a file; fail where it is not TensorBoard's format."""
    content, at, parsed = file.read_bytes(), 0, []
    while at < len(content):
        (size,) = struct.unpack_from("<Q", content, at)
        header, data = content[at : at + 8], content[at + 12 : at + 12 + size]
        for offset, checked in ((8, header), (12 + size, data)):
            assert struct.unpack_from("<I", content, at + offset)[0] == masked_crc32c(checked)
        parsed.append(event_pb2.Event.FromString(data))
        at += 16 + size
    assert at == len(content) and parsed[0].file_version == "brain.Event:2"
    return parsed

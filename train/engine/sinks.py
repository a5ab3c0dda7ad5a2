"""Destinations of a run's metrics: append-only files that tolerate a full disk."""

import collections
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol


class Sink(Protocol):
    """A destination that receives every row of metrics."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Write a row."""

    def close(self) -> None:
        """Flush and release the destination."""


class Appender:
    """A file to append to; pieces that cannot be written are kept and retried later."""

    def __init__(self, path: Path):
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._waiting: collections.deque[bytes] = collections.deque()

    def append(self, piece: bytes) -> None:
        """Append a piece, at once if the disk has room."""
        self._waiting.append(piece)
        try:
            self._write()
        except OSError:  # the next piece tries again
            return

    def close(self) -> None:
        """Write pending pieces and close the file.

        Raises:
            OSError: pieces could not be written.
        """
        try:
            self._write()
        finally:
            self._file.close()

    def _write(self) -> None:
        while self._waiting:
            piece = self._waiting[0]
            written = self._file.write(piece)
            self._waiting[0] = piece[written:]  # the disk may accept only a part
            if not self._waiting[0]:
                self._waiting.popleft()


class Lines:
    """A JSON Lines file with a line for each row."""

    def __init__(self, path: Path):
        self._file = Appender(path)

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row."""
        self._file.append(line(row))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Events:
    """A file of TensorBoard events.

    It replaces the writer of tensorboardX, which stops silently on a full disk and then blocks the
    run.
    """

    def __init__(self, folder: Path, resume_at: int):
        """Open a new file; rows of an earlier run after step `resume_at` are hidden."""
        from tensorboardX.proto import event_pb2  # only runs write events

        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
        self._file = Appender(folder / name)
        self._add(wall_time=now, file_version="brain.Event:2")
        if resume_at:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.SessionStatus.Value("START"))
            self._add(wall_time=now, step=resume_at + 1, session_log=start)

    def write(self, row: Mapping[str, Any]) -> None:
        """Add every number of a row to its curve."""
        from tensorboardX.proto import summary_pb2

        values = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float)
        ]
        summary = summary_pb2.Summary(value=values)
        self._add(wall_time=time.time(), step=row["step"], summary=summary)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _add(self, **fields: Any) -> None:
        from tensorboardX import record_writer
        from tensorboardX.proto import event_pb2

        content = event_pb2.Event(**fields).SerializeToString()
        size = struct.pack("<Q", len(content))
        checks = (struct.pack("<I", record_writer.masked_crc32c(x)) for x in (size, content))
        self._file.append(b"".join((size, next(checks), content, next(checks))))


def line(row: Mapping[str, Any]) -> bytes:
    """Return a row as a line of `metrics.jsonl`."""
    return (json.dumps(row) + "\n").encode()

"""Where the rows of a run's metrics go: files that grow, whose disk may be full now and then."""

import collections
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from tensorboardX import record_writer
from tensorboardX.proto import event_pb2, summary_pb2


class Sink(Protocol):
    """Something else that gets every row."""

    def write(self, row: Mapping[str, Any]) -> None: ...
    def close(self) -> None: ...


class Appender:
    """A file to append to. What cannot be written now is kept and tried again later."""

    def __init__(self, path: Path):
        self._path = path
        self._file = path.open("ab", buffering=0)
        self._waiting: collections.deque[bytes] = collections.deque()

    def append(self, piece: bytes) -> None:
        """Appends a piece, at once if the disk lets it."""
        self._waiting.append(piece)
        try:
            self._write()
        except OSError:  # the next piece tries again
            return

    def close(self) -> None:
        """Writes what is left. Raises `OSError` if that cannot be done."""
        try:
            self._write()
        finally:
            self._file.close()

    def _write(self) -> None:
        while self._waiting:
            piece = self._waiting[0]
            written = self._file.write(piece)
            self._waiting[0] = piece[written:]  # the disk may take a part of it
            if not self._waiting[0]:
                self._waiting.popleft()


class Lines:
    """Rows as JSON, a line each, appended to a file."""

    def __init__(self, path: Path):
        self._file = Appender(path)

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends a row, at once."""
        self._file.append(line(row))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Events:
    """Rows as TensorBoard events, in a file of records of its format.

    tensorboardX's own writer ends silently when the disk is full, and then blocks the run.
    """

    def __init__(self, folder: Path, resume_at: int):
        """Hides what an earlier run wrote behind step `resume_at`."""
        folder.mkdir(parents=True, exist_ok=True)
        now = time.time()
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
        self._file = Appender(folder / name)
        self._add(wall_time=now, file_version="brain.Event:2")
        if resume_at:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.SessionStatus.Value("START"))
            self._add(wall_time=now, step=resume_at + 1, session_log=start)

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds every number of a row to its curve."""
        values = [
            summary_pb2.Summary.Value(tag=name, simple_value=value)
            for name, value in row.items()
            if name != "step" and isinstance(value, int | float)
        ]
        summary = summary_pb2.Summary(value=values)
        self._add(wall_time=time.time(), step=row["step"], summary=summary)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _add(self, **fields: Any) -> None:
        content = event_pb2.Event(**fields).SerializeToString()
        size = struct.pack("<Q", len(content))
        checks = (struct.pack("<I", record_writer.masked_crc32c(x)) for x in (size, content))
        self._file.append(b"".join((size, next(checks), content, next(checks))))


def line(row: Mapping[str, Any]) -> bytes:
    """A row as a line of `metrics.jsonl`."""
    return (json.dumps(row) + "\n").encode()

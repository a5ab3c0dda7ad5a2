"""The byte format of packed rows: records in ArrayRecord files."""

import errno
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

_OPTIONS = "group_size:1"
"""One record per group, so that a row can be read without its neighbours."""


def row_record(documents: Sequence[np.ndarray], dtype: np.dtype) -> bytes:
    """Encode a packed row: number of documents and their lengths (uint32), then the token ids."""
    head = np.array([len(documents), *(len(d) for d in documents)], "<u4")
    return head.tobytes() + np.concatenate(documents).astype(dtype.newbyteorder("<")).tobytes()


def read_row(record: bytes, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Decode a row of `row_record`: concatenated token ids, and document lengths."""
    count = int(np.frombuffer(record, "<u4", 1)[0])
    lengths = np.frombuffer(record, "<u4", count, offset=4)
    ids = np.frombuffer(record, dtype.newbyteorder("<"), offset=4 * (count + 1))
    return ids, lengths


def write_records(path: str | Path, records: Iterable[bytes]) -> int:
    """Write a file of records and return their number.

    Raises:
        OSError: the disk is full, or the file could not be written completely.
    """
    count = 0
    try:
        writer = ArrayRecordWriter(str(path), _OPTIONS)
        for record in records:
            writer.write(record)
            count += 1
        writer.close()
        reader = ArrayRecordReader(str(path))
        whole = reader.num_records() == count
        reader.close()
    except (RuntimeError, ValueError, IndexError) as error:  # the library's translation of errno
        raise _os_error(str(error), path) from error
    if not whole:
        raise OSError(errno.EIO, "not all of it was written", str(path))
    return count


def _os_error(message: str, path: str | Path) -> OSError:
    code = next((n for n in errno.errorcode if os.strerror(n) in message), errno.EIO)
    return OSError(code, os.strerror(code), str(path))

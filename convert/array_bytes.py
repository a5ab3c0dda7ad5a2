"""Arrays as raw bytes: read from a place in a file, and laid out for writing."""

from pathlib import Path

import numpy as np

from modernbert_jax.errors import UserError

from . import lazy


def read(path: Path, offset: int, size: int) -> np.ndarray:
    """Read `size` bytes at an offset of a file as a uint8 array.

    Raises:
        UserError: the file cannot be read, or has become shorter.
    """
    # Not memory-mapped: a file truncated during reading would raise SIGBUS instead of an error.
    try:
        data = np.fromfile(path, np.uint8, size, offset=offset)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if data.size < size:
        raise UserError(f"{path}: ended while it was being read")
    return data


def view(x: lazy.Array) -> memoryview:
    """The little-endian bytes of an array in row-major order; reads it if it is lazy."""
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data

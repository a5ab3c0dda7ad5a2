"""Convert a checkpoint from one format to another, one tensor at a time."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from . import flexbert, formats, lazy, locating
from .checkpoint import cast


def convert(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    format: str | None = None,
    dtype: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Read `src`, write `dst`, and return a one-line summary.

    Warns of weights that are not finite.

    Args:
        src: a checkpoint of any format, by any name that `locate` takes.
        dst: a directory that does not exist yet, or is empty; or a new file `NAME.pt`.
        format: a key of `FORMATS`; by default `hf` from `jax` and from a run's checkpoint, and
            `jax` from any other format.
        dtype: one of `DTYPES`; by default every tensor keeps its own.
        progress: called after every tensor with the bytes read so far and the bytes in total.

    Raises:
        UserError: all problems of the source, or a target that exists or cannot hold the model.
    """
    formats.check_target(dst, format or _default_target("hf", Path(dst)))
    path = locating.locate(src)
    source = formats.detect(path)
    target = format or _default_target(source, Path(dst))
    formats.of_name(target)  # an unknown name is reported before anything is read
    checkpoint = formats.load(path, later=True)
    target = formats.with_modules(target, checkpoint)
    done, total = 0, checkpoint.nbytes

    def advance(name: str, array: np.ndarray) -> None:
        nonlocal done
        done = min(done + array.nbytes, total)
        if progress is not None:
            progress(done, total)

    if dtype:
        checkpoint = cast(checkpoint, dtype)
    with lazy.finite(src), lazy.watching(advance):
        formats.save(checkpoint, dst, target)
    count = checkpoint.count
    return f"{src} ({source}) -> {dst} ({target}): {count:,} parameters, {checkpoint.dtype}"


def _default_target(source: str, dst: Path) -> str:
    if dst.suffix == flexbert.SUFFIX:
        return "flexbert"
    return "hf" if source in ("jax", "run") else "jax"

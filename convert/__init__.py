"""Checkpoints in every format: read, written and compared. Knows the library, not training."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io.files import whole_directory, whole_file

from . import flexbert, huggingface, lazy, modules, native, pylate, run, sentence_transformers
from .average import average
from .checkpoint import DTYPES, Checkpoint, Layout, cast, loaded
from .inspect import inspect, render, show
from .verify import Verification, verify

__all__ = [
    "DTYPES",
    "FORMATS",
    "Checkpoint",
    "Layout",
    "Verification",
    "average",
    "cast",
    "convert",
    "detect",
    "inspect",
    "load",
    "loaded",
    "render",
    "save",
    "show",
    "verify",
]

FORMATS = {
    "hf": huggingface,
    "jax": native,
    "flexbert": flexbert,
    "sentence-transformers": sentence_transformers,
    "pylate": pylate,
}
"""Modules with `read(path) -> Checkpoint`, its arrays lazy, and `write(checkpoint, directory)`."""


def load(path: str | os.PathLike, *, later: bool = False) -> Checkpoint:
    """The checkpoint in a directory, or a research file, of any format.

    Warns of weights that are not finite.

    Args:
        path: of the checkpoint.
        later: leaves the arrays in their files, to be read one by one when they are used. They
            are checked for completeness now, and for NaN never.

    Raises:
        UserError: what is wrong with the checkpoint.
    """
    path = Path(path).expanduser()
    format = detect(path)
    checkpoint = run.read(path) if format == "run" else _module(format).read(path)
    if later:
        return checkpoint
    with lazy.finite(path):
        return loaded(checkpoint)


def save(checkpoint: Checkpoint, path: str | os.PathLike, format: str = "hf") -> None:
    """Writes a new directory, or a research file where the path ends so, whole or not at all.

    Format `hf` keeps what follows the model: it becomes `sentence-transformers` or `pylate` for a
    model that has modules, which Hugging Face directories are too.

    Raises:
        UserError: an unknown format, a path that holds something already, or parameters that do
            not fit the config.
    """
    module, path = _module(_with_modules(format, checkpoint)), Path(path).expanduser()
    if path.suffix == flexbert.SUFFIX and module is flexbert:
        with whole_file(path, new=True) as file:
            flexbert.write_file(checkpoint, file)
        return
    with whole_directory(path) as directory:
        module.write(checkpoint, directory)


def convert(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    format: str | None = None,
    dtype: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> str:
    """Reads `src`, writes `dst` and says in one line what was done.

    Warns of weights that are not finite.

    Args:
        src: a checkpoint of any format.
        dst: a directory that does not exist yet, or is empty; or a new file `NAME.pt`.
        format: a key of `FORMATS`; by default `hf` from `jax` and from a run's checkpoint, and
            `jax` from anything else.
        dtype: one of `DTYPES`; by default every tensor keeps its own.
        progress: called with the bytes that were read, of how many, after every tensor.
    """
    source = detect(Path(src).expanduser())
    target = format or _target(source, Path(dst))
    _module(target)
    checkpoint = load(src, later=True)
    target = _with_modules(target, checkpoint)
    done, total = 0, checkpoint.nbytes

    def advance(name: str, array: np.ndarray) -> None:
        nonlocal done
        done = min(done + array.nbytes, total)
        progress(done, total)

    if dtype:
        checkpoint = cast(checkpoint, dtype)
    with lazy.finite(src), lazy.watching(advance if progress else lambda *_: None):
        save(checkpoint, dst, target)
    count = checkpoint.count
    return f"{src} ({source}) -> {dst} ({target}): {count:,} parameters, {checkpoint.dtype}"


def detect(path: str | os.PathLike) -> str:
    """The format of a checkpoint's directory. Raises `UserError` if it is none."""
    path = Path(path).expanduser()
    if path.is_file() and path.suffix == flexbert.SUFFIX:
        return "flexbert"
    if not path.is_dir():
        what = "no such file" if path.suffix == ".pt" else "no such directory"
        what = "is a file; a checkpoint is a directory" if path.exists() else what
        raise UserError(f"{path}: {what}")
    if run.is_checkpoint(path):
        return "run"
    if steps := run.steps(path):
        raise UserError(
            f"{path}: a run's folder; name one of its checkpoints, such as"
            f" {path / 'checkpoints' / str(steps[-1])}, or its export"
        )
    if (path / native.MARKER).is_file() or (path / native.PARAMS).is_dir():
        return "jax"
    if (path / modules.MODULES).is_file():
        return "pylate" if _late_interaction(path) else "sentence-transformers"
    if (path / "config.json").is_file():
        return "hf"
    if any(path.glob(f"*{flexbert.SUFFIX}")):
        return "flexbert"
    raise UserError(f"{path}: no checkpoint; neither config.json nor {native.MARKER} is in it")


def _target(source: str, dst: Path) -> str:
    if dst.suffix == flexbert.SUFFIX:
        return "flexbert"
    return "hf" if source in ("jax", "run") else "jax"


def _late_interaction(path: Path) -> bool:
    try:
        kind = json.loads((path / modules.SETTINGS).read_bytes())["model_type"]
    except (OSError, ValueError, KeyError, TypeError):
        kind = None
    late = modules.KINDS.get(str(kind)) == "late-interaction"
    return late or b"pylate" in (path / modules.MODULES).read_bytes()


def _with_modules(format: str, checkpoint: Checkpoint) -> str:
    """The format that keeps all that a checkpoint holds."""
    if format != "hf" or modules.MODULES not in checkpoint.files:
        return format
    return "pylate" if checkpoint.pipeline.late else "sentence-transformers"


def _module(format: str):
    if format not in FORMATS:
        raise UserError(f"format is {format!r}; {did_you_mean(format, FORMATS)}")
    return FORMATS[format]

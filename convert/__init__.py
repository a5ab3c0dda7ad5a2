"""Checkpoints in every format: read, written and compared. Knows the library, not training."""

import json
import os
from pathlib import Path

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.files import whole_directory

from . import huggingface, modules, native, pylate, sentence_transformers
from .checkpoint import DTYPES, Checkpoint, Layout, cast
from .inspect import inspect, render, show
from .verify import Verification, verify

__all__ = [
    "DTYPES",
    "FORMATS",
    "Checkpoint",
    "Layout",
    "Verification",
    "cast",
    "convert",
    "detect",
    "inspect",
    "load",
    "render",
    "save",
    "show",
    "verify",
]

FORMATS = {
    "hf": huggingface,
    "jax": native,
    "sentence-transformers": sentence_transformers,
    "pylate": pylate,
}
"""Modules with `read(directory) -> Checkpoint` and `write(checkpoint, directory)`."""

_LATER = ("flexbert",)
"""Formats that are recognised, so that they are not taken for another, and not read yet."""


def load(path: str | os.PathLike) -> Checkpoint:
    """The checkpoint in a directory of any format. Raises `UserError`."""
    path = Path(path).expanduser()
    return _module(detect(path)).read(path)


def save(checkpoint: Checkpoint, path: str | os.PathLike, format: str = "hf") -> None:
    """Writes a new directory, whole or not at all.

    Format `hf` keeps what follows the model: it becomes `sentence-transformers` or `pylate` for a
    model that has modules, which Hugging Face directories are too.

    Raises:
        UserError: an unknown format, a path that holds something already, or parameters that do
            not fit the config.
    """
    module = _module(_with_modules(format, checkpoint))
    with whole_directory(Path(path).expanduser()) as directory:
        module.write(checkpoint, directory)


def convert(
    src: str | os.PathLike,
    dst: str | os.PathLike,
    format: str | None = None,
    dtype: str | None = None,
) -> str:
    """Reads `src`, writes `dst` and says in one line what was done.

    Args:
        src: a checkpoint of any format.
        dst: a directory that does not exist yet, or is empty.
        format: a key of `FORMATS`; by default `hf` from `jax`, and `jax` from anything else.
        dtype: one of `DTYPES`; by default every tensor keeps its own.
    """
    source = detect(Path(src).expanduser())
    target = format or ("hf" if source == "jax" else "jax")
    _module(target)
    checkpoint = load(src)
    target = _with_modules(target, checkpoint)
    if dtype:
        checkpoint = cast(checkpoint, dtype)
    save(checkpoint, dst, target)
    count = checkpoint.count
    return f"{src} ({source}) -> {dst} ({target}): {count:,} parameters, {checkpoint.dtype}"


def detect(path: str | os.PathLike) -> str:
    """The format of a checkpoint's directory. Raises `UserError` if it is none."""
    path = Path(path).expanduser()
    if path.suffix == ".pt":
        return "flexbert"
    if not path.is_dir():
        what = "is a file; a checkpoint is a directory" if path.exists() else "no such directory"
        raise UserError(f"{path}: {what}")
    if (path / native.MARKER).is_file() or (path / native.PARAMS).is_dir():
        return "jax"
    if (path / modules.MODULES).is_file():
        return "pylate" if _late_interaction(path) else "sentence-transformers"
    if (path / "config.json").is_file():
        return "hf"
    if any(path.glob("*.pt")):
        return "flexbert"
    raise UserError(f"{path}: no checkpoint; neither config.json nor {native.MARKER} is in it")


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
    if format in _LATER:
        raise UserError(f"format {format!r} is not supported by this version; use hf or jax")
    if format not in FORMATS:
        raise UserError(f"format is {format!r}; {did_you_mean(format, [*FORMATS, *_LATER])}")
    return FORMATS[format]

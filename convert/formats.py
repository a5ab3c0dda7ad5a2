"""The table of formats; detecting, loading and saving a checkpoint in any of them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.io import outputs
from modernbert_jax.io.files import whole_directory, whole_file
from modernbert_jax.io.json_reader import read_bytes, read_json

from . import (
    adapters,
    flexbert,
    huggingface,
    lazy,
    module_files,
    module_late,
    native,
    run_checkpoint,
    sentence_transformers,
)
from .checkpoint import Checkpoint, loaded
from .sentence_transformers import fits_pylate, pylate


class Format(Protocol):
    """A module that reads and writes one format."""

    def read(self, path: Path, /) -> Checkpoint:
        """Read a checkpoint with lazy arrays. Raises one `UserError` for all problems."""

    def write(self, checkpoint: Checkpoint, directory: Path, /) -> None:
        """Fill an existing, empty directory."""


FORMATS: Mapping[str, Format] = {
    "hf": huggingface,
    "jax": native,
    "flexbert": flexbert,
    "sentence-transformers": sentence_transformers,
    "pylate": pylate,
}


def load(path: str | os.PathLike, *, later: bool = False) -> Checkpoint:
    """Load the checkpoint in a directory, or in a research file, of any format.

    Warns of weights that are not finite.

    Args:
        path: of the checkpoint.
        later: leave the arrays in their files and read each one when it is used. Completeness is
            checked now; NaN is not checked.

    Raises:
        UserError: all problems of the checkpoint.
    """
    path = Path(path).expanduser()
    format = detect(path)
    checkpoint = run_checkpoint.read(path) if format == "run" else of_name(format).read(path)
    if later:
        return checkpoint
    with lazy.finite(path):
        return loaded(checkpoint)


def check_target(path: str | os.PathLike, format: str) -> None:
    """Raise `UserError` for a path to which `save` cannot write; for before the work."""
    path = Path(path).expanduser()
    check = outputs.check_file if _is_file(path, format) else outputs.check_new_folder
    check(path)


def save(checkpoint: Checkpoint, path: str | os.PathLike, format: str = "hf") -> None:
    """Write a new directory, or a research file if the path ends in .pt, whole or not at all.

    Format `hf` becomes `sentence-transformers` or `pylate` for a model with modules; those are
    Hugging Face directories too. Late interaction becomes `pylate` where that can express it,
    because sentence-transformers 6 reads it as well.

    Raises:
        UserError: an unknown format, a path that exists, or parameters that do not fit the config.
    """
    module, path = of_name(with_modules(format, checkpoint)), Path(path).expanduser()
    if _is_file(path, format):
        with whole_file(path, new=True) as file:
            flexbert.write_file(checkpoint, file, path.stem)
        return
    with whole_directory(path) as directory:
        module.write(checkpoint, directory)


def _is_file(path: Path, format: str) -> bool:
    return path.suffix == flexbert.SUFFIX and of_name(format) is flexbert


def detect(path: str | os.PathLike) -> str:
    """The format of a checkpoint: a key of `FORMATS`, or "run" for a training checkpoint.

    Raises:
        UserError: there is no checkpoint at the path.
    """
    path = Path(path).expanduser()
    if path.is_file() and path.suffix == flexbert.SUFFIX:
        return "flexbert"
    if not path.is_dir():
        problem = "no such file" if path.suffix == ".pt" else "no such directory"
        problem = "is a file; a checkpoint is a directory" if path.exists() else problem
        raise UserError(f"{path}: {problem}")
    if run_checkpoint.is_checkpoint(path):
        return "run"
    if steps := run_checkpoint.steps(path):
        raise UserError(
            f"{path}: a run's folder; name one of its checkpoints, such as"
            f" {path / 'checkpoints' / str(steps[-1])}, or its export"
        )
    if (path / native.MARKER).is_file() or (path / native.PARAMS).is_dir():
        return "jax"
    if (path / module_files.MODULES).is_file():
        return "pylate" if _is_pylate(path) else "sentence-transformers"
    if (path / "config.json").is_file():
        return "hf"
    if any(path.glob(f"*{flexbert.SUFFIX}")):
        return "flexbert"
    if (path / adapters.CONFIG).is_file():
        raise UserError(adapters.refusal(path))
    raise UserError(f"{path}: no checkpoint; neither config.json nor {native.MARKER} is in it")


def with_modules(format: str, checkpoint: Checkpoint) -> str:
    """The format that keeps the modules of a checkpoint when `hf` is asked for."""
    if format != "hf" or module_files.MODULES not in checkpoint.files:
        return format
    return "pylate" if fits_pylate(checkpoint) else "sentence-transformers"


def of_name(format: str) -> Format:
    """The module of a format. Raises `UserError` for an unknown name."""
    if format not in FORMATS:
        raise UserError(f"format is {format!r}; {did_you_mean(format, FORMATS)}")
    return FORMATS[format]


def _is_pylate(path: Path) -> bool:
    """Whether modules are those of a late-interaction model in PyLate's layout."""
    try:
        settings = read_json(path / module_files.SETTINGS)
    except UserError:
        settings = {}
    if module_late.is_later(settings):
        return False
    return settings.get("model_type") == "ColBERT" or b"pylate" in read_bytes(
        path / module_files.MODULES
    )

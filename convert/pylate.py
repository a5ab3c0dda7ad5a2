"""Directories of PyLate: late-interaction models, in the layout of sentence-transformers."""

from pathlib import Path

from modernbert_jax.errors import UserError

from . import sentence_transformers
from .checkpoint import Checkpoint


def read(directory: Path) -> Checkpoint:
    """The checkpoint in a directory. Raises `UserError` that lists what is wrong."""
    return sentence_transformers.read(directory)


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fills an existing, empty directory. Raises `UserError` for another kind of model."""
    if checkpoint.pipeline is None or checkpoint.pipeline.late is None:
        raise UserError(
            "format 'pylate' is for late-interaction models, and this is none; use 'hf', which"
            " keeps all that came with the model"
        )
    sentence_transformers.fill(checkpoint, directory)

"""Format `pylate`: late-interaction models, in the layout of sentence-transformers."""

from pathlib import Path

from modernbert_jax.errors import UserError

from ..checkpoint import Checkpoint
from . import directory as directories
from .layouts import in_pylate_layout


def read(directory: Path) -> Checkpoint:
    """Read the checkpoint in a directory. Raises one `UserError` for all problems."""
    return directories.read(directory)


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fill an existing, empty directory.

    Raises:
        UserError: another kind of model, or something that PyLate cannot express.
    """
    if checkpoint.pipeline is None or checkpoint.pipeline.late is None:
        raise UserError(
            "format 'pylate' is for late-interaction models, and this is not one; use 'hf', which"
            " keeps everything that the checkpoint has"
        )
    directories.fill(in_pylate_layout(checkpoint, checkpoint.pipeline), directory)

"""Read both layouts of sentence-transformers; write the older one, which every version loads."""

from pathlib import Path

from modernbert_jax.errors import UserError

from .. import huggingface, module_files, module_pipeline
from ..checkpoint import Checkpoint
from .old_layout import in_old_layout


def read(directory: Path) -> Checkpoint:
    """Read the checkpoint in a directory. Raises one `UserError` for all problems."""
    carried = huggingface.read_carried(directory)
    path = module_files.listing(carried)[0][1]
    if path:
        raise UserError(
            f"{directory / module_files.MODULES}: the Transformer is in {path!r}; move its files to"
            " the directory itself and make its path empty"
        )
    pipeline = module_pipeline.read(carried, {})
    assert pipeline is not None  # there is a modules.json
    return huggingface.read(directory, pipeline.projections, bare=pipeline.kind != "reranker")


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fill an existing, empty directory. Raises `UserError` for a late-interaction model."""
    if checkpoint.pipeline and checkpoint.pipeline.late:
        raise UserError("this is a late-interaction model; use format 'pylate'")
    fill(checkpoint, directory)


def fill(checkpoint: Checkpoint, directory: Path) -> None:
    """Fill an existing, empty directory with a model of any kind."""
    checkpoint = in_old_layout(checkpoint)
    huggingface.write(checkpoint, directory)
    for name in module_files.files_of(checkpoint.files)[3:]:
        (directory / name).parent.mkdir(exist_ok=True, parents=True)

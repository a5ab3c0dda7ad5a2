"""Read both layouts of sentence-transformers; write the one that most versions load.

For late interaction that is version 6's: what earlier ones had is format `pylate`.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.io.json_reader import read_bytes

from .. import huggingface, module_files, module_pipeline
from ..checkpoint import Checkpoint
from .layouts import in_multi_vector_layout, in_widest_layout


def read(directory: Path) -> Checkpoint:
    """Read the checkpoint in a directory. Raises one `UserError` for all problems."""
    carried = huggingface.read_carried(directory)
    folder = module_files.listing(carried)[0][1]
    if folder:
        inside = huggingface.read_carried(directory / folder)
        if (settings := directory / folder / module_files.TRANSFORMER).is_file():
            inside[module_files.TRANSFORMER] = read_bytes(settings)
        carried = _with_transformer(carried, folder, inside)
    pipeline = module_pipeline.read(carried, {})
    assert pipeline is not None  # there is a modules.json
    bare = pipeline.kind != "reranker" or bool(pipeline.steps)
    checkpoint = huggingface.read(directory / folder, pipeline.layers, bare, directory)
    pipeline.check_widths(checkpoint.config.hidden_size)
    if pipeline.splade and checkpoint.head != "masked_lm":
        raise UserError(
            f"{directory}: a sparse model needs a masked-LM head, and its head is"
            f" {checkpoint.head}; correct architectures in its config.json"
        )
    return dataclasses.replace(checkpoint, files=carried)


def _with_transformer(
    files: Mapping[str, bytes], folder: str, inside: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Files of a layout in which the Transformer has a folder of its own, as if it had none.

    It is that of the first versions, with `0_Transformer`.
    """
    listed = json.loads(files[module_files.MODULES])
    listed[0]["path"] = ""
    kept = {name: x for name, x in files.items() if not name.startswith(folder)}
    return {**kept, **inside, module_files.MODULES: json.dumps(listed, indent=2).encode()}


def write(checkpoint: Checkpoint, directory: Path) -> None:
    """Fill an existing, empty directory. Raises `UserError` for what the layout cannot express.

    Late-interaction models have the layout of version 6, others the widest.
    """
    pipeline = checkpoint.pipeline
    if pipeline and pipeline.late:
        fill(in_multi_vector_layout(checkpoint, pipeline), directory)
    else:
        fill(in_widest_layout(checkpoint), directory)


def fill(checkpoint: Checkpoint, directory: Path) -> None:
    """Fill an existing, empty directory with a model and the files that it has about modules."""
    huggingface.write(checkpoint, directory)
    for name in module_files.files_of(checkpoint.files)[3:]:
        (directory / name).parent.mkdir(exist_ok=True, parents=True)

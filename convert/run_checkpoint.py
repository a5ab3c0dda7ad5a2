"""Read the model in a training checkpoint, `RUN/checkpoints/STEP`; nothing writes this format.

The metadata of the checkpoint holds the architecture, the head and its labels, and the files about
modules after the model, where it has some. The tokenizer is in `RUN/tokenizer`.
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError, first_line
from modernbert_jax.io import checksums
from modernbert_jax.tokenizer import FILES
from modernbert_jax.tokenizer_settings import CONFIG

from . import module_files, module_pipeline, names
from .checkpoint import Checkpoint, label_count

STATE, CHECKPOINTS, EXPORT = "state", "checkpoints", "export"


def is_checkpoint(path: Path) -> bool:
    """True if a directory is a checkpoint of a training run."""
    return path.name.isdecimal() and (path / STATE).is_dir()


def is_run(path: Path) -> bool:
    """True if a directory is the folder of a training run with a checkpoint or an export."""
    if not (path / "config.json").is_file() or any(path.glob("*.safetensors")):
        return False
    return (path / EXPORT / "config.json").is_file() or bool(steps(path))


def steps(path: Path) -> list[int]:
    """Steps of the checkpoints in a run's folder, ascending; empty if it is not such a folder."""
    folders = (path / CHECKPOINTS).glob("*") if (path / "config.json").is_file() else ()
    return sorted(int(p.name) for p in folders if is_checkpoint(p))


def facts(checkpoint: Checkpoint, own: Sequence[str] = ()) -> dict[str, Any]:
    """What `read` needs of the metadata, as JSON.

    Args:
        checkpoint: the model that the run exports; its parameters are not looked at.
        own: names of parameters of the objective, which are no part of the model.
    """
    # The longest input of some models is a setting of their tokenizer.
    described = {*module_files.files_of(checkpoint.files), CONFIG}
    return {
        "model": checkpoint.config.to_hf(),
        "head": checkpoint.head,
        "extra": dict(checkpoint.extra),
        "files": {n: x.decode() for n, x in checkpoint.files.items() if n in described},
        "own": list(own),
    }


def read(directory: Path) -> Checkpoint:
    """Read the model in a training checkpoint; the optimizer's state is not loaded.

    Raises:
        UserError: the checkpoint is damaged, or holds only the trained subset of a model.
    """
    directory = directory.absolute()
    with _readable(directory):
        noted, described = _described(directory)
        config = ModernBertConfig.from_hf(noted["model"])
        head, extra = noted.get("head", "masked_lm"), noted.get("extra", {})
        folder = directory.parent.parent / "tokenizer"
        files = {n: (folder / n).read_bytes() for n in FILES if (folder / n).is_file()}
        files |= {name: text.encode() for name, text in noted.get("files", {}).items()}
        pipeline = module_pipeline.read(files, extra)
        layers = pipeline.layers if pipeline else ()
        described = {k: x for k, x in described.items() if k not in noted.get("own", ())}
        # Objectives of modules name the encoder, also where nothing after it has parameters.
        bare = head == "none" and not layers
        rows = names.table(config, head, label_count(head, extra), layers=layers)
        names.check_params(described["encoder"] if bare else described, rows, directory)
        params = _loaded(directory, described)
    return Checkpoint(
        config=config,
        params=params["encoder"] if bare else params,
        head=head,
        extra=extra,
        files=files,
    )


def parameters(directory: Path) -> Any:
    """Read all parameters in a training checkpoint of any objective, numpy arrays by name.

    Raises:
        UserError: as `read`.
    """
    directory = directory.absolute()
    with _readable(directory):
        return _loaded(directory, _described(directory)[1])


def _described(directory: Path) -> tuple[dict[str, Any], Any]:
    """Facts of the run, and the shapes of its parameters. Raises `UserError`."""
    from orbax.checkpoint import v1 as ocp  # takes a second, and other formats do without

    if (problem := checksums.damage(directory)) is not None:
        raise UserError(f"{directory}: damaged ({problem}); take another checkpoint of the run")
    metadata = ocp.checkpointables_metadata(directory)
    noted = metadata.custom_metadata
    run = noted.get("config", {})
    if run.get("freeze") or run.get("freeze_layers") or run.get("lora", {}).get("rank"):
        raise UserError(
            f"{directory}: holds only what its run trains, not the frozen parameters; the whole"
            f" model is in {directory.parent.parent / 'export'} when the run is finished"
        )
    return noted, metadata.metadata[STATE]["params"]


def _loaded(directory: Path, described: Any) -> Any:
    from orbax.checkpoint import v1 as ocp

    context = ocp.Context()
    context.pytree.loading.partial_load = True  # skips the optimizer's moments
    with context:
        like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), described)
        return ocp.load_checkpointables(directory, {STATE: {"params": like}})[STATE]["params"]


@contextlib.contextmanager
def _readable(directory: Path) -> Iterator[None]:
    """Raise `UserError` for whatever the block raises."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many types
        reason = first_line(error)
        raise UserError(f"{directory}: not readable as a run's checkpoint ({reason})") from error

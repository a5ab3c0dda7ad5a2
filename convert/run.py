"""A checkpoint of a training run, `RUN/checkpoints/STEP`. Its model is read; it is never written.

The architecture that was trained stands in its metadata, and the head with its labels if it is not
that of masked words; the tokenizer lies in `RUN/tokenizer`.
"""

from pathlib import Path

import jax
import numpy as np

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError, first_line
from modernbert_jax.io import checksums
from modernbert_jax.tokenizer import FILES

from . import names
from .checkpoint import Checkpoint, labels

STATE = "state"


def is_checkpoint(path: Path) -> bool:
    """Whether a directory is a checkpoint of a run."""
    return path.name.isdecimal() and (path / STATE).is_dir()


def steps(path: Path) -> list[int]:
    """The steps of the checkpoints in a run's folder; none where it is no run's folder."""
    found = (path / "checkpoints").glob("*") if (path / "config.json").is_file() else ()
    return sorted(int(p.name) for p in found if is_checkpoint(p))


def read(directory: Path) -> Checkpoint:
    """The model in a checkpoint of a run. Raises `UserError`."""
    from orbax.checkpoint import v1 as ocp  # takes a second, and reading `hf` does without

    directory = directory.absolute()
    if (problem := checksums.damage(directory)) is not None:
        raise UserError(f"{directory}: damaged ({problem}); take another checkpoint of the run")
    try:
        metadata = ocp.checkpointables_metadata(directory)
        told = metadata.custom_metadata
        run = told.get("config", {})
        if run.get("freeze") or run.get("freeze_layers") or run.get("lora", {}).get("rank"):
            raise UserError(
                f"{directory}: holds only what its run trains, not what is frozen; the whole model"
                f" is in {directory.parent.parent / 'export'} when the run is finished"
            )
        config = ModernBertConfig.from_hf(told["model"])
        head, extra = told.get("head", "masked_lm"), told.get("extra", {})
        found = metadata.metadata[STATE]["params"]
        rows = names.table(config, head, labels(head, extra))
        names.check_params(found, rows, directory)
        context = ocp.Context()
        context.pytree.loading.partial_load = True  # the optimizer's moments are left alone
        with context:
            like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), found)
            loaded = ocp.load_checkpointables(directory, {STATE: {"params": like}})
    except UserError:
        raise
    except Exception as error:  # of many kinds
        reason = first_line(error)
        raise UserError(f"{directory}: not readable as a run's checkpoint ({reason})") from error
    folder = directory.parent.parent / "tokenizer"
    return Checkpoint(
        config=config,
        params=loaded[STATE]["params"],
        head=head,
        extra=extra,
        files={n: (folder / n).read_bytes() for n in FILES if (folder / n).is_file()},
    )

"""Names of models, resolved in one way: paths, runs, checkpoints of runs, and the hub."""

import os
import warnings
from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.io import hub
from modernbert_jax.tokenizer import Tokenizer

from . import formats, run_checkpoint


def locate(name: str | os.PathLike, revision: str | None = None) -> Path:
    """The folder or file of the checkpoint that a name means.

    Args:
        name: a folder of any format, a research file, a run's folder, a run's checkpoint; failing
            that, `owner/name` on the hub. A run's folder means its export, or the newest checkpoint
            if it is not finished.
        revision: branch, tag or commit on the hub.

    Raises:
        UserError: there is no such model, or the hub cannot be reached.
    """
    path = hub.locate(name, revision)
    if not run_checkpoint.is_run(path):
        return path
    export, steps = path / run_checkpoint.EXPORT, run_checkpoint.steps(path)
    if (export / "config.json").is_file():
        return export
    warnings.warn(f"{name}: not finished; step {steps[-1]:,} of the run is read", stacklevel=2)
    return path / run_checkpoint.CHECKPOINTS / str(steps[-1])


def tokenizer_of(name: str | os.PathLike) -> Tokenizer:
    """The tokenizer of a model, by any name that `locate` takes, or of a `tokenizer.json`.

    From the hub only the tokenizer is downloaded.

    Raises:
        UserError: there is no such model, or it has no tokenizer.
    """
    path = Path(name).expanduser()
    path = path if path.exists() else hub.download(str(name), weights=False)
    if path.is_file() and path.suffix == ".json":
        return Tokenizer.load(path)
    home = path.parent.parent if run_checkpoint.is_checkpoint(path) else path
    for folder in (home, home / "tokenizer", home / run_checkpoint.EXPORT):
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.load(folder)
    if path.exists() and path.suffix == ".pt":
        tokenizer = formats.load(path, later=True).tokenizer
        if tokenizer is not None:
            return tokenizer
    raise UserError(f"{name}: has no tokenizer.json; name a folder or a model that has one")

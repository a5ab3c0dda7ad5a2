"""Fine-tuning on a larger task first (Phang et al. 2018): RTE, MRPC and STS-B from MNLI.

Both are runs of their own, each with its folder; the first is done once, and every later run that
names its folder starts from the model in it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from modernbert_jax import configs
from modernbert_jax.errors import UserError
from modernbert_jax.io.progress import Progress

from .examples.run import read_result
from .finetune import training
from .finetune.config import FinetuneConfig, Intermediate
from .finetune.run import available_inputs, folder_of


def finetune(
    config: FinetuneConfig, profile_steps: tuple[int, int] | None = None
) -> dict[str, Any] | None:
    """Fine-tune with `training.finetune`, after the run that comes first, if there is one."""
    following = prepared(config)
    return None if following is None else training.finetune(following, profile_steps)


def prepared(
    config: FinetuneConfig, finetune: Callable[[FinetuneConfig], Any] = finetune
) -> FinetuneConfig | None:
    """Do the run that comes first, and return the configuration of the run that follows it.

    Args:
        config: of the run that follows.
        finetune: runs or resumes a configuration; returns None where it was asked to stop.

    Returns:
        The configuration, starting from the first run's model; None if it was asked to stop.

    Raises:
        UserError: there are no data for the first run, and none that is finished.
    """
    config.check_output()
    before = config.intermediate
    if not before.recipe:
        return config
    first = configs.load("finetune", before.recipe)
    files = {k: getattr(before, k) for k in ("train", "validation", "output")}
    first = dataclasses.replace(
        first,
        model=config.model,
        mesh=config.mesh,
        runtime=config.runtime,
        **{k: x for k, x in files.items() if x},
    )
    export, say = Path(first.output) / "export", Progress(0).say
    if first.output == config.output:
        raise UserError(f"intermediate.output is {first.output}, as is output; they must differ")
    if first.train:
        folder = folder_of(first, available_inputs(first))
        # A run in which anything differs tells so itself.
        changed = folder.started and (folder.differences() or folder.changed_inputs())
        done = read_result(folder) is not None and not changed
        when = "is done" if done else "comes first"
        say(f"{config.output}: starts from {first.output}, which {when}")
        if not done and finetune(first) is None:
            return None
    elif not (export / "config.json").is_file():
        raise UserError(
            f"{config.output}: starts from the model of {before.recipe}, and there is none in"
            f" {first.output}; give its data with --intermediate.train, the folder of a finished"
            ' run with --intermediate.output, or start without it: --intermediate.recipe ""'
        )
    return dataclasses.replace(config, model=str(export), intermediate=Intermediate())

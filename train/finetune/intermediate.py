"""Fine-tuning on a larger task first (Phang et al. 2018): RTE, MRPC and STS-B from MNLI.

Both are runs of their own, each with its folder; the first is done once, and every later run that
names its folder starts from the model in it.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modernbert_jax.errors import UserError

if TYPE_CHECKING:
    from .config import FinetuneConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Intermediate:
    """A run whose model another one starts from."""

    recipe: str = ""
    """What it runs: a recipe's name, a Python file with config(), or a run's config.json; none
    means that `model` is started from itself. Model, mesh and runtime are those of the run that
    follows."""
    train: str = ""
    """Labelled examples; by default those of the recipe."""
    validation: str = ""
    output: str = ""
    """Folder of the run; by default that of the recipe. What is finished there is used again."""


def prepared(
    config: "FinetuneConfig", finetune: Callable[["FinetuneConfig"], Any]
) -> "FinetuneConfig | None":
    """The configuration of the run itself, starting from what comes before it.

    Args:
        config: of the run that follows.
        finetune: runs or resumes a configuration; None where it was asked to stop.

    Returns None if it was asked to stop. Raises `UserError` where there are no data for the first
    run, and none that is finished.
    """
    before = config.intermediate
    if not before.recipe:
        return config
    from modernbert_jax import configs
    from modernbert_jax.io.progress import Progress

    from .run import Run

    first = configs.load("finetune", before.recipe)
    given = {k: getattr(before, k) for k in ("train", "validation", "output")}
    first = dataclasses.replace(
        first,
        model=config.model,
        mesh=config.mesh,
        runtime=config.runtime,
        **{k: x for k, x in given.items() if x},
    )
    export, say = Path(first.output) / "export", Progress(0).say
    if first.output == config.output:
        raise UserError(f"intermediate.output is {first.output}, as is output; they must differ")
    if first.train:
        run = Run(first)
        # Nothing is read for a run that is done; one in which anything differs tells so itself.
        done = run.result() is not None and not run.differences()
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

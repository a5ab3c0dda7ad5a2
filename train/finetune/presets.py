"""Where a fine-tuning run's configuration comes from: a task, a recipe, a file, or another run."""

from collections.abc import Sequence
from typing import Any

from modernbert_jax.configs import finetune as configs
from modernbert_jax.errors import UserError, did_you_mean

from .. import presets
from ..tasks import TASKS
from .config import FinetuneConfig, from_json


def names() -> list[str]:
    """The kinds of tasks, and the recipes that come with the package."""
    return [*TASKS, *sorted(configs.RECIPES)]


def load(source: str) -> FinetuneConfig:
    """The configuration named by a kind of task, a recipe, a `.py` file or a `config.json`.

    Raises:
        UserError: there is nothing of that name, or it does not hold a configuration.
    """
    if source in TASKS:
        return FinetuneConfig(task=TASKS[source]())
    if source in configs.RECIPES:
        return configs.RECIPES[source]()
    if not source.endswith((".py", ".json")):
        raise UserError(f"no preset is named {source!r}; {did_you_mean(source, names())}")
    return presets.load(source, FinetuneConfig, configs, from_json)


def first(command: str, args: Sequence[str]) -> tuple[FinetuneConfig, Any, Sequence[str]]:
    """`modernbert_jax.train.presets.first` for configurations of fine-tuning."""
    return presets.first(command, args, load, names, "classification")

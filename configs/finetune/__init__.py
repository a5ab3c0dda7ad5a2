"""Presets of fine-tuning: every kind of task here, and recipes for public data sets by module.

modernbert-jax finetune rte --train rte/train.parquet --validation rte/validation.parquet ...
"""

import functools

from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.tasks import TASKS

from .. import Preset


def config(kind: str) -> FinetuneConfig:
    """The default configuration of a key of `TASKS`."""
    return FinetuneConfig(task=TASKS[kind]())


PRESETS: dict[str, Preset] = {
    kind: Preset(
        (task.__doc__ or "").split(". ")[0].split("\n")[0], functools.partial(config, kind)
    )
    for kind, task in TASKS.items()
}

"""Recipes of fine-tuning: functions that make a configuration, by the names that commands know.

modernbert-jax finetune rte --train rte/train.parquet --validation rte/validation.parquet ...
"""

from collections.abc import Callable

from modernbert_jax.train.finetune.config import FinetuneConfig

from . import extraction, glue, superglue

RECIPES: dict[str, Callable[[], FinetuneConfig]] = (
    glue.RECIPES | superglue.RECIPES | extraction.RECIPES
)

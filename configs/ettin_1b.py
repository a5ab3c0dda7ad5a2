"""Ettin 1b: modernbert-jax pretrain ettin-1b --data DATA."""

from modernbert_jax.train.pretrain.config import PretrainConfig

from . import _ettin


def config() -> PretrainConfig:
    """The recipe at this size."""
    return _ettin.recipe("1b")

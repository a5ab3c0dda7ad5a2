"""Settings of a run over examples, whatever it learns from them."""

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.io import standard_input
from modernbert_jax.ranges import Count, Range, Rate

from ..engine.config import TrainConfig

Epochs = Annotated[float, Range(0, 10**6, above=True)]
"""Passes over the training examples."""

_RATES = ("attention_dropout", "embedding_dropout", "mlp_dropout")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExamplesConfig(TrainConfig):
    """A run that starts from a checkpoint and passes over examples, a number of them each step."""

    START_OPTION: ClassVar[str] = "--model"

    model: str = "answerdotai/ModernBERT-base"
    """Checkpoint to start from, in any format, or the name of a model on the hub."""
    init: Literal["checkpoint", "random"] = "checkpoint"
    """`random` takes only architecture and tokenizer of `model`: trains from scratch, as a
    baseline."""
    output: str = "finetuned"

    epochs: Epochs = 3.0
    """Passes over the training examples."""
    batch_examples: Count = 32
    """Examples in the batch of a step, over all devices."""
    microbatch_tokens: Count = 8192
    """Tokens, over all devices, whose activations are in memory at once. The loss is that of the
    whole batch in any case."""
    attention_dropout: Rate = 0.1
    """Dropout rate in training after each attention's output projection, as in ModernBERT's
    research code; transformers has 0."""
    embedding_dropout: Rate = 0.0
    """Dropout rate in training after the embeddings."""
    mlp_dropout: Rate = 0.0
    """Dropout rate in training after each feed-forward block."""

    keep_best: bool = True
    save_every: Count = 500
    keep: Count = 2

    def __post_init__(self):
        super().__post_init__()
        self._expand("model")

    def in_training(self, model: ModernBertConfig, **changes: Any) -> ModernBertConfig:
        """The architecture with the dropout of the run, and other changes."""
        return dataclasses.replace(model, **{x: getattr(self, x) for x in _RATES}, **changes)


def check_file(name: str, path: str) -> None:
    """Raise `UserError` for a file of examples that cannot be read twice."""
    if path == standard_input.NAME:
        raise UserError(
            f"{name} is '-'; a run reads its data again when it is resumed, so store"
            " standard input in a file and name that"
        )

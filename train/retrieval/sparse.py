"""Sparse encoders as what a run trains: their data, objective, evaluation and files."""

import dataclasses

from modernbert_jax import convert
from modernbert_jax.errors import UserError
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.pipeline import Pipeline, SpladePooling

from . import initial_model
from .config import RetrievalConfig
from .embedding import Embedding
from .objective import RetrievalObjective
from .sparse_encoding import SparseTextEncoder
from .sparse_objective import SparseObjective

HEAD = "masked_lm"
"""Head whose scores are the weights of a sparse vector."""


@dataclasses.dataclass(frozen=True)
class Sparse(Embedding):
    """A model that gives a weight of every id of the vocabulary for each text (SPLADE)."""

    ENCODER = SparseTextEncoder

    @classmethod
    def open(cls, config: RetrievalConfig) -> "Sparse":
        checkpoint = initial_model.load(config)
        pipeline = pipeline_of(config, checkpoint)
        return cls(initial_model.resolved(config, checkpoint), checkpoint, pipeline)

    @property
    def head(self) -> str:
        return HEAD

    def objective(self, shape: Shape) -> RetrievalObjective:
        assert self.pipeline.splade is not None  # `pipeline_of` gives it
        return SparseObjective(
            config=self.config,
            model=self.model,
            loss_kind=self.loss,
            documents=shape.documents,
            pooling=self.pipeline.splade,
        )

    @property
    def whole(self) -> tuple[str, ...]:
        lora = self.config.lora
        return ("head", "decoder") if lora.whole == type(lora).whole else lora.whole


def pipeline_of(config: RetrievalConfig, checkpoint: convert.Checkpoint) -> Pipeline:
    """The pooling, prompts and lengths of the trained model.

    Raises:
        UserError: a checkpoint without a masked-LM head, or more weights than the vocabulary has.
    """
    if checkpoint.head != HEAD:
        raise UserError(
            f"{config.model}: has no masked-LM head, whose scores are the weights of a sparse"
            " vector; name a masked language model, such as answerdotai/ModernBERT-base"
        )
    new = Pipeline(kind="sparse", steps=(SpladePooling(),), similarity="dot")
    before = checkpoint.pipeline or new
    most = config.max_active_dims or before.max_active_dims
    if most and most > (size := checkpoint.config.vocab_size):
        raise UserError(f"max_active_dims is {most:,}; the vocabulary has {size:,} ids")
    lengths = (config.max_length or before.max_length or 0, *config.lengths.values())
    return dataclasses.replace(
        before,
        prompts={**before.prompts, **config.prompts},
        similarity=before.similarity or "dot",
        max_length=max(lengths) if lengths[0] else None,
        max_active_dims=most,
    )

"""Types that the options of several commands share."""

from typing import Annotated, Literal, TypeVar

import tyro

T = TypeVar("T")

Flat = Annotated[T, tyro.conf.arg(name="")]
"""A nested dataclass whose options have no prefix of their own."""

Format = Literal["hf", "jax", "flexbert", "sentence-transformers", "pylate"]
"""Formats of checkpoints: a key of `convert.FORMATS`."""

TaskKind = Literal["classification", "multilabel", "regression", "tokens", "questions", "choice"]
"""Kinds of fine-tuning tasks: a key of `train.tasks.TASKS`."""

RetrievalTask = Literal["retrieval", "reranking", "sts", "triplets"]
"""Tasks of retrieval that are evaluated: `train.retrieval.evaluation.run.TASKS`."""

OnError = Literal["stop", "skip"]
"""Reactions to an unusable document."""

Dtype = Literal["float32", "bfloat16"]
"""Types of the computation."""

Weights = Literal["float32", "bfloat16", "int8"]
"""Types of the stored matrices of a model: `quantization.Weights`."""


def as_option(field: str) -> str:
    """The name of a field on the command line, without dashes before it."""
    return field.replace("_", "-")

"""The Ettin rerankers of six sizes: distilled from the scores of a larger reranker.

Learning rate and batch of each size are those that its author published, as are the loss (squared
error to the raw scores of mxbai-rerank-large-v2, about -12 to 22), one epoch, a warm-up over 3 % of
the steps, linear decay and bfloat16. Data: `cross-encoder/ettin-reranker-v1-data`, 143,393,475
triples of query, document and score. A document's vector is that of its first token.
"""

import functools
from typing import NamedTuple

from modernbert_jax.config import Runtime
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig

from .. import Preset
from .dpr import MICROBATCH_TOKENS


class Size(NamedTuple):
    """Hyperparameters that differ between sizes."""

    learning_rate: float
    batch_examples: int


SIZES = {
    "17m": Size(2.4e-4, 1024),
    "32m": Size(1.2e-4, 512),
    "68m": Size(3e-5, 256),
    "150m": Size(1.5e-5, 192),
    "400m": Size(7e-6, 256),
    "1b": Size(3e-6, 512),
}


def config(size: str) -> RetrievalConfig:
    """The recipe of a key of `SIZES`."""
    return RetrievalConfig(
        kind="reranker",
        model=f"jhu-clsp/ettin-encoder-{size}",
        output=f"ettin-reranker-{size}",
        loss=LossConfig(name="mse"),
        head="modules",
        pooling="cls",
        epochs=1.0,
        learning_rate=SIZES[size].learning_rate,
        batch_examples=SIZES[size].batch_examples,
        warmup=0.03,
        schedule="linear",
        runtime=Runtime(dtype="bfloat16"),
        microbatch_tokens=MICROBATCH_TOKENS,
    )


PRESETS: dict[str, Preset] = {
    f"ettin-reranker-{size}": Preset(
        f"Reranker on Ettin's {size.upper()} encoder, distilled from scores.",
        functools.partial(config, size),
    )
    for size in SIZES
}
"""One recipe for each size."""

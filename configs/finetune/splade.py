"""Sparse encoders (SPLADE) on MS MARCO, with the figures of sentence-transformers' examples.

`train_splade_msmarco_mnrl.py`: the first 100,000 rows of the subset `triplets` of
`sentence-transformers/msmarco`. `train_splade_msmarco_margin_mse.py`: the first 100,000 rows of
`bert-ensemble-margin-mse`, whose score is the margin of the positive over the negative. Both set
apart 10,000 of the rows. Both have 16 examples a step, learning rate 2e-5, a warm-up over 10 % of
the steps, linear decay, bfloat16, one epoch, texts of at most 256 tokens, and an evaluation every
500 steps. Their weights of the FLOPS regularization differ, and rise over a third of the steps.

There the encoders are distilbert-base-uncased and co-condenser-marco; here it is ModernBERT-base,
for which no figures are published.
"""

import functools

from modernbert_jax.config import Runtime
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig

from .. import Preset


def config(name: str, loss: str, query_flops: float, document_flops: float) -> RetrievalConfig:
    """The recipe of a loss."""
    return RetrievalConfig(
        kind="sparse",
        output=name,
        loss=LossConfig(name=loss),
        columns=("query", "positive", "negative"),
        query_flops=query_flops,
        document_flops=document_flops,
        flops_ramp=1 / 3,
        max_length=256,
        epochs=1.0,
        batch_examples=16,
        learning_rate=2e-5,
        warmup=0.1,
        schedule="linear",
        runtime=Runtime(dtype="bfloat16"),
        eval_every=500,
    )


PRESETS: dict[str, Preset] = {
    "splade": Preset(
        "ModernBERT-base as a sparse encoder, on triplets of MS MARCO.",
        functools.partial(config, "splade", "multiple-negatives-ranking", 5e-5, 1e-3),
    ),
    "splade-margin-mse": Preset(
        "ModernBERT-base as a sparse encoder, distilled from margins on MS MARCO.",
        functools.partial(config, "splade-margin-mse", "margin-mse", 0.1, 0.08),
    ),
}

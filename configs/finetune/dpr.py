"""ModernBERT's single-vector retrievers on MS MARCO (Warner et al. 2024, 3.1.2), and on GooAQ.

Data: `msmarco-co-condenser-margin-mse-sym-mnrl-mean-v1` of sentence-transformers, subset
`triplet-hard`, with the columns query, positive and negative. The authors set apart 1,000 rows
(seed 12) and trained on the first 1,250,000 of the others, once, as `train_examples` says. The
model is the bare checkpoint with mean pooling and cosine, without prompts; texts are not cut below
the model's 8,192 tokens.

Learning rates are the result of the paper's sweep (Table 9 of arXiv 2412.13663v2). The paper's
batch of 16 is a mistake that its authors corrected (AnswerDotAI/ModernBERT#176): a step has 4,096
examples, 8 GPUs x 64 x 8 for base and 8 x 16 x 32 for large, which makes 305 steps. There the
negatives of a query were those of its device: 127, or 1,023 in the published script, which has 512
examples a device. Here they are those of the whole batch: 8,191.

GooAQ (`train_st_gooaq.py`): 3 million pairs in batches of 2,048, evaluated every 50 steps; what it
does not say is as above.
"""

import functools
from typing import Any

from modernbert_jax.config import Runtime
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig

from .. import Preset

MICROBATCH_TOKENS = 131_072
"""Tokens in memory at once, over all devices: ours, 16,384 on each of 8 GPUs."""


def _config(name: str, size: str, **changes: Any) -> RetrievalConfig:
    """A recipe for a size of ModernBERT; the loss has the figures of the library's defaults."""
    return RetrievalConfig(
        kind="embedding",
        model=f"answerdotai/ModernBERT-{size}",
        output=name,
        loss=LossConfig(name="multiple-negatives-ranking", scale=20.0, similarity="cosine"),
        pooling="mean",
        similarity="cosine",
        epochs=1.0,
        warmup=0.05,
        schedule="linear",
        optimizer="adamw",
        weight_decay=0.0,
        runtime=Runtime(dtype="bfloat16"),
        microbatch_tokens=MICROBATCH_TOKENS,
        **changes,
    )


def dpr(size: str, learning_rate: float) -> RetrievalConfig:
    """Triplets of MS MARCO."""
    return _config(
        f"dpr-{size}",
        size,
        columns=("query", "positive", "negative"),
        train_examples=1_250_000,
        learning_rate=learning_rate,
        batch_examples=4096,
        eval_every=500,
    )


def gooaq() -> RetrievalConfig:
    """Questions and answers of GooAQ."""
    return _config(
        "gooaq",
        "base",
        columns=("question", "answer"),
        learning_rate=8e-5,
        batch_examples=2048,
        eval_every=50,
    )


PRESETS: dict[str, Preset] = {
    "dpr-base": Preset(
        "ModernBERT-base as a retriever, on triplets of MS MARCO.",
        functools.partial(dpr, "base", 8e-5),
    ),
    "dpr-large": Preset(
        "ModernBERT-large as a retriever, on triplets of MS MARCO.",
        functools.partial(dpr, "large", 1e-4),
    ),
    "gooaq": Preset("ModernBERT-base as a retriever, on questions of GooAQ.", gooaq),
}

"""modernbert-embed-base: weak pairs first, then supervised lists; and with more Matryoshka dims.

Figures are those of its authors' files (nomic-ai/contrastors, `contrastive_pretrain_modernbert` and
`contrastive_finetune_modernnomic`): learning rates, batches, weight decay, clipping at 1, the scale
50 of the softmax, lengths of 128 and 512 tokens, seed 42, mean pooling, prompts, the widths 256 and
768 of the second stage and its 7 negatives a query (columns `negative...`). `matryoshka` has the
widths of the same authors' nomic-embed-text-v1.5 in the second stage.

Ours: warm-ups are shares of the steps, which stand for 700 steps of 235 million pairs and 400 steps
of 1.7 million lists, and the tokens of a microbatch. Each data set is a file of its own; a batch
holds one of them, in proportion to their sizes.

    modernbert-jax finetune modernbert-embed-pairs --train pairs/*.parquet --output pairs
    modernbert-jax finetune modernbert-embed --model pairs/export --train lists/*.parquet
"""

import functools
from typing import Any

from modernbert_jax.config import Runtime
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig

from .. import Preset
from .dpr import MICROBATCH_TOKENS

PAIRS, LISTS = 235_000_000, 1_700_000
"""Examples of the two stages: Nussbaum et al. 2024 (arXiv 2402.01613), and its supervised sets."""


def _config(name: str, warmup_steps: int, examples: int, **changes: Any) -> RetrievalConfig:
    """A stage; what both share is here."""
    return RetrievalConfig(
        kind="embedding",
        output=name,
        loss=LossConfig(name="multiple-negatives-ranking", scale=50.0, similarity="cosine"),
        prompts={"query": "search_query: ", "document": "search_document: "},
        sampling="proportional",
        pooling="mean",
        similarity="cosine",
        epochs=1.0,
        warmup=warmup_steps * changes["batch_examples"] / examples,
        optimizer="adamw",
        weight_decay=0.01,
        clip_norm=1.0,
        b1=0.9,
        b2=0.999,
        seed=42,
        runtime=Runtime(dtype="bfloat16"),
        microbatch_tokens=MICROBATCH_TOKENS,
        **changes,
    )


def pairs() -> RetrievalConfig:
    """The first stage, on weak pairs."""
    return _config(
        "modernbert-embed-pairs",
        700,
        PAIRS,
        model="answerdotai/ModernBERT-base",
        learning_rate=2e-4,
        batch_examples=16_384,
        schedule="cosine",
        max_length=128,
    )


def lists(name: str, widths: tuple[int, ...]) -> RetrievalConfig:
    """The second stage, on queries with a positive and 7 negatives."""
    return _config(
        name,
        400,
        LISTS,
        model="modernbert-embed-pairs/export",
        learning_rate=2e-5,
        batch_examples=256,
        schedule="linear",
        max_length=512,
        matryoshka_dims=widths,
        matryoshka_weights=(1.0,) * len(widths),
    )


PRESETS: dict[str, Preset] = {
    "modernbert-embed-pairs": Preset("First stage of modernbert-embed-base: weak pairs.", pairs),
    "modernbert-embed": Preset(
        "Second stage of modernbert-embed-base: supervised lists.",
        functools.partial(lists, "modernbert-embed", (768, 256)),
    ),
    "matryoshka": Preset(
        "The second stage with vectors that can be cut to 512, 256, 128 and 64 numbers.",
        functools.partial(lists, "matryoshka", (768, 512, 256, 128, 64)),
    ),
}

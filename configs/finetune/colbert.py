"""Late-interaction models on ModernBERT: the paper's, GTE- and Reason-ModernColBERT, ColBERT-Zero.

Figures are those of the papers and of the training scripts that their authors published; PyLate's
defaults stand for what they leave out: 128 dimensions, the prefixes `[Q] ` and `[D] `, queries of
32 tokens that are filled up, documents of 180 without punctuation, AdamW without weight decay, a
linear schedule, temperature 1.

- `colbert-base`, `colbert-large` (Warner et al. 2024, 3.1.2; Table 9): distillation of scored lists
  of MS MARCO (`lightonai/ms-marco-en-bge`), 810,000 queries in batches of 16, warm-up of 5 %. The
  published results search documents of 510 tokens.
- `gte-moderncolbert`: from gte-modernbert-base, distilled from `ms-marco-en-bge-gemma`, 3 epochs,
  documents of 300 tokens.
- `reason-moderncolbert`: from GTE-ModernColBERT, contrastive, documents of 8,192 and queries of 128
  tokens, no skiplist.
- `colbert-zero-pretrain`, `-supervised`, `-distil` (arXiv 2602.16609): 239 million weak pairs, then
  1.7 million queries with up to 10 mined negatives, then distillation of 640,000 lists. The cheap
  variant leaves the first out: start the second from `answerdotai/ModernBERT-base` with `--model`.
  Prompts must be the same in all stages.
- `edge-colbert-17m`, `edge-colbert-32m`: vectors of 48 and 64 dimensions by two stacked projections
  on Ettin, the sizes of mxbai-edge-colbert (arXiv 2510.14880).

Ours are the tokens of a microbatch. Scores of a query's documents are scaled to 0..1 in
distillation, as in PyLate.
"""

import functools
from typing import Any

from modernbert_jax.config import Runtime
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig

from .. import Preset
from .dpr import MICROBATCH_TOKENS

CONTRASTIVE = functools.partial(LossConfig, name="multiple-negatives-ranking")
DISTILLATION = LossConfig(name="distill-kl", normalize_scores=True)

PROMPTS = {"query": "[Q] search_query: ", "document": "[D] search_document: "}
"""Prefixes of ColBERT-Zero: PyLate's, then a prompt whose 7 tokens are added to the lengths."""


def _config(name: str, **changes: Any) -> RetrievalConfig:
    """A recipe; what all share is here."""
    values: dict[str, Any] = {
        "kind": "late-interaction",
        "output": name,
        "lengths": {"query": 32, "document": 180},
        "projection_dims": 128,
        "epochs": 1.0,
        "warmup": 0.0,
        "schedule": "linear",
        "optimizer": "adamw",
        "weight_decay": 0.0,
        "runtime": Runtime(dtype="bfloat16"),
        "microbatch_tokens": MICROBATCH_TOKENS,
    }
    return RetrievalConfig(**values | changes)


def paper(size: str, learning_rate: float) -> RetrievalConfig:
    """The models of the paper's Table 1."""
    return _config(
        f"colbert-{size}",
        model=f"answerdotai/ModernBERT-{size}",
        loss=DISTILLATION,
        learning_rate=learning_rate,
        batch_examples=16,
        warmup=0.05,
        train_examples=810_000,
    )


def gte() -> RetrievalConfig:
    """GTE-ModernColBERT-v1."""
    return _config(
        "gte-moderncolbert",
        model="Alibaba-NLP/gte-modernbert-base",
        loss=DISTILLATION,
        learning_rate=3e-5,
        batch_examples=16,
        epochs=3.0,
        lengths={"query": 32, "document": 300},
    )


def reason() -> RetrievalConfig:
    """Reason-ModernColBERT."""
    return _config(
        "reason-moderncolbert",
        model="lightonai/GTE-ModernColBERT-v1",
        loss=CONTRASTIVE(scale=1.0),
        learning_rate=1e-5,
        batch_examples=256,
        epochs=3.0,
        projection_dims=0,
        lengths={"query": 128, "document": 8192},
        skiplist="none",
    )


def zero(stage: str, model: str, **changes: Any) -> RetrievalConfig:
    """A stage of ColBERT-Zero."""
    name = f"colbert-zero-{stage}"
    return _config(name, model=model, prompts=PROMPTS, **changes)


def edge(size: str, width: int) -> RetrievalConfig:
    """A small model with narrow vectors, distilled."""
    hidden = {"17m": 256, "32m": 384}[size]
    return _config(
        f"edge-colbert-{size}",
        model=f"jhu-clsp/ettin-encoder-{size}",
        loss=DISTILLATION,
        learning_rate=8e-5,
        batch_examples=16,
        warmup=0.05,
        projection_hidden=(2 * hidden,),
        projection_dims=width,
    )


_START = "answerdotai/ModernBERT-base"

PRESETS: dict[str, Preset] = {
    "colbert-base": Preset(
        "ModernBERT-base for late interaction, distilled on MS MARCO.",
        functools.partial(paper, "base", 1e-4),
    ),
    "colbert-large": Preset(
        "ModernBERT-large for late interaction, distilled on MS MARCO.",
        functools.partial(paper, "large", 3e-5),
    ),
    "gte-moderncolbert": Preset("GTE-ModernColBERT: late interaction, distilled.", gte),
    "reason-moderncolbert": Preset("Reason-ModernColBERT: late interaction, long texts.", reason),
    "colbert-zero-pretrain": Preset(
        "First stage of ColBERT-Zero: weak pairs.",
        functools.partial(
            zero,
            "pretrain",
            _START,
            loss=CONTRASTIVE(scale=50.0),
            learning_rate=3e-4,
            batch_examples=16_384,
            sampling="proportional",
            lengths={"query": 39, "document": 187},
        ),
    ),
    "colbert-zero-supervised": Preset(
        "Second stage of ColBERT-Zero: mined negatives.",
        functools.partial(
            zero,
            "supervised",
            "colbert-zero-pretrain/export",
            loss=CONTRASTIVE(scale=5.0),
            learning_rate=8e-6,
            batch_examples=64,
            projection_dims=0,
            lengths={"query": 39, "document": 512},
        ),
    ),
    "colbert-zero-distil": Preset(
        "Last stage of ColBERT-Zero: scored lists.",
        functools.partial(
            zero,
            "distil",
            "colbert-zero-supervised/export",
            loss=DISTILLATION,
            learning_rate=4e-6,
            batch_examples=128,
            train_examples=640_000,
            projection_dims=0,
            lengths={"query": 39, "document": 512},
        ),
    ),
    "edge-colbert-17m": Preset(
        "Ettin 17M for late interaction with vectors of 48 dimensions.",
        functools.partial(edge, "17m", 48),
    ),
    "edge-colbert-32m": Preset(
        "Ettin 32M for late interaction with vectors of 64 dimensions.",
        functools.partial(edge, "32m", 64),
    ),
}

"""Small runs of every kind of retrieval training, by name, on a few files of a folder."""

from pathlib import Path
from typing import Any

import pairs

from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig

_EMBEDDING = {
    "kind": "embedding",
    "prompts": {"query": "ba: "},
    "include_prompt": False,
    "projection_dims": 16,
}
_LATE = {
    "kind": "late-interaction",
    "prompts": {"query": "[Q] ", "document": "[D] "},
    "lengths": {"query": 12, "document": 40},
    "projection_hidden": (24,),
    "projection_dims": 16,
    "skiplist": "no le",
}
_RERANKER = {"kind": "reranker", "prompts": {"query": "ba: "}, "max_length": 64}

RUNS: dict[str, dict[str, Any]] = {
    "embedding": {**_EMBEDDING, "loss": LossConfig(learn_scale=True)},
    "guided": {
        **_EMBEDDING,
        "loss": LossConfig(name="gist"),
        "guide": "guide",
        "evaluation": ("search",),
    },
    "pairs": {
        **_RERANKER,
        "loss": LossConfig(name="binary-cross-entropy"),
        "train": ("train.jsonl",),
        "evaluation": ("search",),
    },
    "lists": {
        **_RERANKER,
        "loss": LossConfig(name="multiple-negatives-ranking"),
        "head": "modules",
        "include_prompt": False,
    },
    "several": {
        **_EMBEDDING,
        "loss": LossConfig(learn_scale=True),
        "losses": {"similar": LossConfig(name="cosent")},
        "train": ("train.jsonl", "similar.jsonl"),
    },
    "late": {**_LATE, "loss": LossConfig(scale=4.0), "evaluation": ("search",)},
    "mixed": {
        **_LATE,
        "loss": LossConfig(scale=4.0),
        "losses": {"scored": LossConfig(name="distill-kl")},
        "train": ("train.jsonl", "scored.jsonl"),
    },
    "distilled": {
        **_LATE,
        "loss": LossConfig(name="distill-kl", normalize_scores=True),
        "train": ("scored.jsonl",),
        "validation": (),
        "evaluation": ("search",),
        "query_expansion": "min",
        "expansion_length": 8,
    },
    "sparse": {
        "kind": "sparse",
        "model": "masked-lm",
        "max_length": 64,
        "query_flops": 3e-2,
        "document_flops": 2e-2,
        "learning_rate": 1e-3,  # larger steps tell which of two close tokens is the largest
        "evaluation": ("search",),
    },
}
"""Fields in which runs differ, by name; paths are relative to the folder."""


def write(folder: Path) -> Path:
    """Write a model, a guide, examples and a collection, if the folder does not have them."""
    if not (folder / "search").exists():
        pairs.model(folder / "base")
        pairs.model(folder / "guide", hidden_size=48, num_attention_heads=3)
        pairs.masked_lm(folder / "masked-lm")
        pairs.write(folder / "train.jsonl", pairs.records(60, negatives=2))
        pairs.write(folder / "more.jsonl", pairs.records(40, negatives=0, seed=1))
        pairs.write(folder / "similar.jsonl", pairs.similar(40))
        pairs.write(folder / "scored.jsonl", pairs.scored(60))
        pairs.write(folder / "dev.jsonl", pairs.records(16, seed=2))
        pairs.collection(folder / "search", pairs.records(16, negatives=2, seed=3))
    return folder


def config(folder: Path, run: str, output: str, **changes: Any) -> RetrievalConfig:
    """The run of a name with changes, in a folder of `write`: two epochs, 8 or 14 steps."""
    values = {
        "model": "base",
        "train": ("train.jsonl", "more.jsonl"),
        "validation": ("dev.jsonl",),
        "output": output,
        "learning_rate": 3e-3,
        "epochs": 2,
        "batch_examples": 16,
        "microbatch_tokens": 512,
        "attention_dropout": 0.1,
        "save_every": 5,
        "eval_every": 6,
        "log_every": 1,
        **RUNS[run],
        **changes,
    }
    for name in ("model", "output", "guide"):
        if name in values:
            values[name] = str(folder / values[name])
    for name in ("train", "validation", "evaluation"):
        if name in values:
            values[name] = tuple(str(folder / path) for path in values[name])
    return RetrievalConfig(**values)

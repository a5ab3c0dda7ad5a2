"""Small labelled data sets that can be learned, and a checkpoint to start from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import corpus
import numpy as np

from modernbert_jax import convert
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.convert import names
from modernbert_jax.tokenizer import Tokenizer

WORDS = corpus.WORDS
FIRST, SECOND = WORDS[:10], WORDS[10:20]
"""What tells two labels apart."""


def model(**changes) -> ModernBertConfig:
    """Layer 0, a group of three layers; 32 wide, 320 ids."""
    values = {
        "vocab_size": 320,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "local_attention": 16,
        "initializer_range": 0.15,
        "bos_token_id": 316,
        "cls_token_id": 316,
        "eos_token_id": 317,
        "sep_token_id": 317,
        "pad_token_id": 318,
    }
    return ModernBertConfig(**values | changes)


def checkpoint(folder: Path, tokenizer: Tokenizer, **changes) -> Path:
    """A masked-LM directory with random weights."""
    config = model(**changes)
    shapes = names.shapes(names.table(config, "masked_lm"))
    rng, params = np.random.default_rng(0), {}
    for path, shape in sorted(shapes.items()):
        noise = rng.standard_normal(shape).astype(np.float32)
        scale = 0.3 if path[-1] == "embedding" else 0.7 * shape[-2] ** -0.5 if len(shape) > 1 else 0
        leaf = 1 + 0.1 * noise if path[-1] == "scale" else scale * noise
        names.put(params, path, leaf.astype(np.float32))
    made = convert.Checkpoint(config=config, params=params, files=tokenizer.files)
    convert.save(made, folder, "hf")
    return folder


def sentence(rng: np.random.Generator, marks: Sequence[str], words: int) -> list[str]:
    """Words of no meaning, and a few marks among them."""
    found = [WORDS[i] for i in rng.integers(40, len(WORDS), words)]
    for at in rng.integers(0, words, 1 + words // 4):
        found[at] = marks[rng.integers(len(marks))]
    return found


def write(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """As JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def classification(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Which of two sets of words occurs."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        label = int(rng.integers(2))
        words = sentence(rng, (FIRST, SECOND)[label], int(rng.integers(3, 24)))
        records.append({"text": " ".join(words), "label": ("first", "second")[label]})
    return records

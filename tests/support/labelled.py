"""Small labelled data sets that can be learned, and an initial checkpoint."""

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
"""Words that distinguish two labels."""


def model(**changes) -> ModernBertConfig:
    """A model of layer 0 and a group of three layers, 32 wide, with 320 ids."""
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
    """Write a masked-LM directory with random weights."""
    config = model(**changes)
    shapes = names.shapes(names.table(config, "masked_lm"))
    rng, params = np.random.default_rng(0), {}
    for path, shape in sorted(shapes.items()):
        noise = rng.standard_normal(shape).astype(np.float32)
        scale = 0.3 if path[-1] == "embedding" else 0.7 * shape[-2] ** -0.5 if len(shape) > 1 else 0
        leaf = 1 + 0.1 * noise if path[-1] == "scale" else scale * noise
        names.put(params, path, leaf.astype(np.float32))
    random = convert.Checkpoint(config=config, params=params, files=tokenizer.files)
    convert.save(random, folder, "hf")
    return folder


def sentence(rng: np.random.Generator, marks: Sequence[str], words: int) -> list[str]:
    """Draw words without meaning, with a few marks among them."""
    sentence = [WORDS[i] for i in rng.integers(40, len(WORDS), words)]
    for at in rng.integers(0, words, 1 + words // 4):
        sentence[at] = marks[rng.integers(len(marks))]
    return sentence


def write(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def classification(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make records whose label is the set of words that occurs."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        label = int(rng.integers(2))
        words = sentence(rng, (FIRST, SECOND)[label], int(rng.integers(3, 24)))
        records.append({"text": " ".join(words), "label": ("first", "second")[label]})
    return records


def multilabel(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make records whose labels are the sets of words that occur: none, one or both."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        words = [WORDS[i] for i in rng.integers(40, len(WORDS), rng.integers(3, 16))]
        names = [n for n in ("first", "second") if rng.random() < 0.5]
        for name in names:
            words[rng.integers(len(words)) : 0] = [{"first": FIRST, "second": SECOND}[name][3]] * 2
        records.append({"text": " ".join(words), "labels": names})
    return records


def regression(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make records whose number is the share of words from the first of two sets."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        size = int(rng.integers(3, 16))
        first = rng.random(size) < rng.random()
        words = [(FIRST if hit else SECOND)[rng.integers(10)] for hit in first]
        records.append({"text": " ".join(words), "label": float(first.mean())})
    return records


def tokens(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make records in which words of two sets are entities of two kinds."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        words = sentence(rng, (*FIRST[:3], *SECOND[:3]), int(rng.integers(3, 16)))
        tags = ["B-A" if w in FIRST else "B-B" if w in SECOND else "O" for w in words]
        records.append({"tokens": words, "ner_tags": tags})
    return records


def questions(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make records whose answer is the only word of the first set in the text."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        words = [WORDS[i] for i in rng.integers(40, len(WORDS), rng.integers(3, 16))]
        at = int(rng.integers(len(words)))
        words[at] = FIRST[rng.integers(3)]
        start = len(" ".join(words[:at])) + (at > 0)
        answers = {"text": [words[at]], "answer_start": [start]}
        records.append({"question": "ba?", "context": " ".join(words), "answers": answers})
    return records


def choice(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Make records in which the right one of two or three options has words of the first set."""
    rng = np.random.default_rng(seed)
    records = []
    for _ in range(count):
        label, size = int(rng.integers(2)), int(rng.integers(2, 4))
        options = [
            " ".join(sentence(rng, FIRST if i == label else SECOND, int(rng.integers(3, 10))))
            for i in range(size)
        ]
        records.append({"question": "ba ce", "choices": options, "label": label})
    return records


RECORDS = {
    "classification": classification,
    "multilabel": multilabel,
    "regression": regression,
    "tokens": tokens,
    "questions": questions,
    "choice": choice,
}
"""Functions that make records from a count and a seed, by kind of task."""

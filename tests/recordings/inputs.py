"""The inputs of a recording: texts, labelled examples and a small checkpoint.

They follow from seeds and are written without the program that is recorded. Only the tokenizer of
the checkpoint comes from the program, whose `tokenizer train` is recorded as well.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

VOCABULARY = 320
"""Ids of the tokenizer and of every model."""

LAYERS, WIDTH, UNITS, HEADS, WINDOW = 5, 64, 96, 2, 16
"""Layer 0, one group of three layers and one layer after it."""

FEW_LAYERS = 2
"""Options of a second checkpoint, for runs that do not depend on how layers are stored."""

SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu")
WORDS = [f"{a}{b}" for a in SYLLABLES for b in SYLLABLES]
FIRST, SECOND, NEUTRAL = WORDS[:10], WORDS[10:20], WORDS[40:]
"""Words that mark the first label, the second label, and neither."""

Record = dict[str, Any]


def write_texts(folder: Path) -> None:
    """Write `prose.jsonl`, `code.jsonl` (with repeated documents) and `mixture.toml`."""
    folder.mkdir(parents=True)
    prose, code = list(_documents(90, 11)), list(_documents(60, 7))
    write_lines(folder / "prose.jsonl", [{"text": text} for text in prose])
    write_lines(folder / "code.jsonl", [{"text": text} for text in (*code, *code[:9])])
    (folder / "mixture.toml").write_text(
        '[components.prose]\ninput = ["prose.jsonl"]\nweight = 2.0\n\n'
        '[components.code]\ninput = ["code.jsonl"]\nweight = 1.0\nepochs = 3\n'
    )


def _documents(count: int, seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        start, step = rng.integers(len(WORDS), size=2)
        words = int(rng.integers(3, 160))
        yield " ".join(WORDS[(start + j * (1 + step % 7)) % len(WORDS)] for j in range(words))


def write_labelled(folder: Path) -> None:
    """Write `KIND-train.jsonl`, `KIND-validation.jsonl` and `KIND-new.jsonl` of every task."""
    folder.mkdir(parents=True)
    for number, (kind, make) in enumerate(RECORDS.items()):
        for part, count in (("train", 48), ("validation", 20), ("new", 12)):
            rng = np.random.default_rng([number, count])
            write_lines(folder / f"{kind}-{part}.jsonl", [make(rng) for _ in range(count)])


def _words(rng: np.random.Generator, marks: Sequence[str], least: int, most: int) -> list[str]:
    """Neutral words, and one or more of the marks among them."""
    words = [NEUTRAL[i] for i in rng.integers(len(NEUTRAL), size=rng.integers(least, most))]
    for at in rng.integers(len(words), size=1 + len(words) // 4):
        words[at] = marks[rng.integers(len(marks))]
    return words


def _classification(rng: np.random.Generator) -> Record:
    label = int(rng.random() < 0.35)
    words = _words(rng, (FIRST, SECOND)[label], 3, 24)
    return {"text": " ".join(words), "label": ("first", "second")[label]}


def _pairs(rng: np.random.Generator) -> Record:
    labels = rng.integers(2, size=2)
    a, b = (" ".join(_words(rng, (FIRST, SECOND)[i], 3, 12)) for i in labels)
    label = "entailment" if labels[0] == labels[1] else "neutral"
    return {"premise": a, "hypothesis": b, "label": label}


def _multilabel(rng: np.random.Generator) -> Record:
    words = _words(rng, NEUTRAL, 3, 16)
    there = [name for name in ("first", "second", "third") if rng.random() < 0.4]
    for name in there:
        marks = {"first": FIRST, "second": SECOND, "third": WORDS[20:30]}[name]
        words[int(rng.integers(len(words))) : 0] = [marks[3]] * 2
    return {"text": " ".join(words), "labels": there}


def _regression(rng: np.random.Generator) -> Record:
    share, size = rng.random(), int(rng.integers(3, 16))
    hits = rng.random(size) < share
    a = " ".join((FIRST if hit else SECOND)[rng.integers(10)] for hit in hits)
    return {"a": a, "b": " ".join(_words(rng, NEUTRAL, 3, 6)), "score": float(hits.mean())}


def _tokens(rng: np.random.Generator) -> Record:
    words = _words(rng, (*FIRST[:3], *SECOND[:3]), 3, 40)
    tags = ["B-A" if w in FIRST else "B-B" if w in SECOND else "O" for w in words]
    return {"tokens": words, "ner_tags": tags}


def _questions(rng: np.random.Generator) -> Record:
    words = _words(rng, NEUTRAL, 3, 60)
    answers: Record = {"text": [], "answer_start": []}
    if rng.random() < 0.8:
        at = int(rng.integers(len(words)))
        words[at] = FIRST[rng.integers(3)]
        answers = {"text": [words[at]], "answer_start": [len(" ".join([*words[:at], ""]))]}
    return {"question": "ba ce?", "context": " ".join(words), "answers": answers}


def _choice(rng: np.random.Generator) -> Record:
    label, size = int(rng.integers(2)), int(rng.integers(2, 4))
    options = [" ".join(_words(rng, FIRST if i == label else SECOND, 3, 10)) for i in range(size)]
    return {"question": "ba ce", "choices": options, "label": label}


RECORDS = {
    "classification": _classification,
    "pairs": _pairs,
    "multilabel": _multilabel,
    "regression": _regression,
    "tokens": _tokens,
    "questions": _questions,
    "choice": _choice,
}
"""A function that draws one record, by file name."""


def write_checkpoint(folder: Path, tokenizer: Path, layers: int) -> None:
    """Write a Hugging Face masked-LM directory with random weights.

    Args:
        folder: directory to make.
        tokenizer: directory whose files are copied; its special tokens go into `config.json`.
        layers: number of layers.
    """
    folder.mkdir(parents=True)
    for path in tokenizer.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "config.json").write_text(json.dumps(_config(tokenizer, layers), indent=2))
    rng = np.random.default_rng(3)
    weights = {name: _weight(rng, name, shape) for name, shape in sorted(_shapes(layers).items())}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _config(tokenizer: Path, layers: int) -> dict[str, Any]:
    added = json.loads((tokenizer / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in added}
    return {
        "model_type": "modernbert",
        "architectures": ["ModernBertForMaskedLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": UNITS,
        "num_hidden_layers": layers,
        "num_attention_heads": HEADS,
        "local_attention": WINDOW,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000.0,
        "local_rope_theta": 10_000.0,
        "tie_word_embeddings": True,
        "bos_token_id": ids["[CLS]"],
        "cls_token_id": ids["[CLS]"],
        "eos_token_id": ids["[SEP]"],
        "sep_token_id": ids["[SEP]"],
        "pad_token_id": ids["[PAD]"],
    }


def _shapes(layers: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors, as transformers has them."""
    shapes: dict[str, tuple[int, ...]] = {
        "model.embeddings.tok_embeddings.weight": (VOCABULARY, WIDTH),
        "model.embeddings.norm.weight": (WIDTH,),
        "model.final_norm.weight": (WIDTH,),
        "head.dense.weight": (WIDTH, WIDTH),
        "head.norm.weight": (WIDTH,),
        "decoder.bias": (VOCABULARY,),
    }
    for i in range(layers):
        layer = f"model.layers.{i}"
        shapes |= {f"{layer}.attn_norm.weight": (WIDTH,)} if i else {}
        shapes |= {
            f"{layer}.attn.Wqkv.weight": (3 * WIDTH, WIDTH),
            f"{layer}.attn.Wo.weight": (WIDTH, WIDTH),
            f"{layer}.mlp_norm.weight": (WIDTH,),
            f"{layer}.mlp.Wi.weight": (2 * UNITS, WIDTH),
            f"{layer}.mlp.Wo.weight": (WIDTH, UNITS),
        }
    return shapes


def _weight(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> np.ndarray:
    noise = rng.standard_normal(shape, np.float32)
    if len(shape) == 1:
        return np.float32("norm" in name) + np.float32(0.1) * noise
    scale = 0.3 if "embeddings" in name else 0.7 * shape[1] ** -0.5
    return np.float32(scale) * noise


def write_lines(path: Path, records: Sequence[Record]) -> None:
    """Write records as JSON lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records))

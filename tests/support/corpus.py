"""A small corpus with its tokenizer, prepared rows and a run that takes seconds."""

import dataclasses
import json
from pathlib import Path

from modernbert_jax import tokenizer
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.tokenizer import Tokenizer
from modernbert_jax.train.config import PretrainConfig, Stage
from modernbert_jax.train.corpus.prepare import prepare
from modernbert_jax.train.corpus.sources import Corpus

SYLLABLES = ("ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu")
WORDS = [f"{a}{b}" for a in SYLLABLES for b in SYLLABLES]


def texts(count: int = 120) -> list[str]:
    """Return different documents of 3 to about 400 words, the same in every call."""
    documents = []
    for i in range(count):
        words = 3 + (i * i * 37) % 400
        documents.append(
            " ".join(WORDS[(i * 7 + j * (1 + i % 5)) % len(WORDS)] for j in range(words))
        )
    return documents


def write_jsonl(path: Path, documents: list[str]) -> Path:
    """Write documents as JSON lines."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    return path


def make_tokenizer(vocab_size: int = 320) -> Tokenizer:
    """Train a byte-level BPE tokenizer, by default with 320 ids."""
    return tokenizer.train(texts(), vocab_size)


def prepared(folder: Path, lengths=(64, 128), vocab_size: int = 320, **options) -> Path:
    """Prepare the corpus as packed rows in `folder`/data."""
    folder.mkdir(exist_ok=True)
    corpus = Corpus([write_jsonl(folder / "corpus.jsonl", texts())])
    options = {"validation": 0.1} | options
    prepare(corpus, make_tokenizer(vocab_size), folder / "data", lengths, **options)
    return folder / "data"


def run_config(folder: Path, data: Path, **changes) -> PretrainConfig:
    """Return a run of two stages and 24 steps, with 2 layers of 32; batches grow to two rows."""
    model = ModernBertConfig(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        local_attention=16,
        bos_token_id=316,
        cls_token_id=316,
        eos_token_id=317,
        sep_token_id=317,
        pad_token_id=318,
    )
    stages = (
        Stage(
            name="short",
            tokens=(4 + 12 * 2) * 64,
            length=64,
            rows=2,
            microbatch_rows=1,
            batch_warmup_tokens=4 * 64,
            batch_warmup_rows=1,
            peak_learning_rate=3e-3,
            warmup_tokens=4 * 64,
            global_rope_theta=10_000.0,
        ),
        Stage(
            name="long",
            tokens=8 * 1 * 128,
            length=128,
            rows=1,
            peak_learning_rate=1e-3,
            decay_tokens=8 * 1 * 128,
        ),
    )
    values = {"log_every": 1, "save_every": 5, "eval_every": 6, "eval_rows": 4, "keep": 2}
    config = PretrainConfig(
        model=model, stages=stages, output=str(folder / "run"), data=str(data), **values
    )
    return dataclasses.replace(config, **changes)


def even_config(config: PretrainConfig, rows: int, steps: int = 6, **changes) -> PretrainConfig:
    """Return a run of one stage whose batches have `rows` rows, in two microbatches."""
    stage = dataclasses.replace(
        config.stages[0],
        rows=rows,
        microbatch_rows=rows // 2,
        batch_warmup_rows=0,
        batch_warmup_tokens=0,
        warmup_tokens=0,
        tokens=steps * rows * config.stages[0].length,
    )
    return dataclasses.replace(config, stages=(stage,), **changes)

"""Texts of a file to vectors on the CPU, beside sentence-transformers.

Both sides load the same random weights and compute in float32 with two threads in processes of
their own: they read JSON lines, tokenize, compute mean-pooled vectors and write them. They take
turns, the fastest turn counts, and they must agree on the vectors. No round begins after ten
minutes.
"""

import importlib.util
import itertools
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from modernbert_jax import tokenizer as tokenizers
from modernbert_jax.config import ModernBertConfig
from modernbert_jax.errors import UserError, did_you_mean
from modernbert_jax.model import Encoder
from modernbert_jax.tokenizer import Tokenizer

from ..corpus.sources import Corpus
from . import Measurement, Options, compared
from .data import write_texts
from .encode import write_random
from .turns import Answer, take_turns

TOLERANCE = 1e-3
"""Maximum difference between vectors of the two sides, whose numbers are of the order of 1."""

ENOUGH = 600.0
"""Seconds of turns after which no further round begins."""

WORKER = Path(__file__).with_name("embed_worker.py")

PEERS = {
    "peer": "sentence-transformers, batches of 32 in the given order",
    "peer_sorted": "sentence-transformers, sorted by length",
}

_VOCABULARY = 32_768
_IDS = ("pad_token_id", "bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id")
_VOCABULARY_FACTS = {"vocab_size": _VOCABULARY, **dict.fromkeys(_IDS, 0)}
"""Facts of a configuration; the ids, which the encoder does not read, only have to exist."""

_SMALLER = 40
"""How many times fewer texts the base model gets, whose tokens cost so much more."""

_WORDS = 90
"""Median of the words of a text, about 120 tokens."""


class EmbedWorkload(NamedTuple):
    """A model, and the number of texts."""

    config: ModernBertConfig
    texts: int


def measure(options: Options) -> Iterator[Measurement]:
    """Measure real tokens per second and rows of both sides, and a longer stream of ours.

    Raises:
        UserError: a model that is not compared.
        RuntimeError: the sides disagree.
    """
    yield from compare(workloads(options), options)


def workloads(options: Options) -> dict[str, EmbedWorkload]:
    """Workloads by name."""
    small = ModernBertConfig.preset(
        "base",
        hidden_size=192,
        intermediate_size=288,
        num_hidden_layers=4,
        num_attention_heads=3,
        **_VOCABULARY_FACTS,
    )
    base = ModernBertConfig.preset("base", **_VOCABULARY_FACTS)
    known = {
        "small": EmbedWorkload(small, options.texts),
        "base": EmbedWorkload(base, max(options.texts // _SMALLER, 1)),
    }
    for name in options.models:
        if name not in known:
            raise UserError(f"no model {name!r}; {did_you_mean(name, known)}")
    chosen = {name: known[name] for name in options.models or known}
    return {f"{name}, {x.texts:,} texts": x for name, x in chosen.items()}


def peer_installed() -> bool:
    """Whether PyTorch and sentence-transformers are installed."""
    return all(importlib.util.find_spec(name) for name in ("torch", "sentence_transformers"))


def compare(workloads: dict[str, EmbedWorkload], options: Options) -> Iterator[Measurement]:
    """Measure workloads; without a peer if it is not installed."""
    with tempfile.TemporaryDirectory(prefix="bench-embed-") as place:
        folder = Path(place)
        source = write_texts(options, folder / "source.jsonl")
        tokenizer = _tokenizer(options, source)
        for name, workload in workloads.items():
            model = folder / name.split(",")[0]
            write_random(Encoder(workload.config), "none", model)
            tokenizer.save(model)
            texts = mixed(Corpus([source]), workload.texts)
            yield from _compare(name, texts, model, folder, options.repeats)


def _compare(
    name: str, texts: Sequence[str], model: Path, folder: Path, repeats: int
) -> Iterator[Measurement]:
    """Measure a workload, and the same with a tenth of the texts."""
    whole = _write(texts, folder / "texts.jsonl")
    sides = ("ours", *(PEERS if peer_installed() else ()))
    _, turns = take_turns(WORKER, (model, whole, folder), sides, repeats, enough=ENOUGH)
    vectors = {side: np.load(folder / f"{side}.npy") for side in sides}
    for side in sides:
        difference = float(np.abs(vectors[side] - vectors["ours"]).max())
        if not difference <= TOLERANCE:
            raise RuntimeError(f"vectors of {side} differ from ours by {difference:.1e}")
    best = {side: min(turn["seconds"] for turn in turns[side]) for side in sides}
    ours = turns["ours"][0]
    yield from compared(name, "tokens/s", {s: ours["tokens"] / best[s] for s in sides}, PEERS)
    yield _alone(f"{name}, rows", "% full", 100 * ours["full"])
    yield _alone(f"{name}, peak memory", "GB", _memory(turns["ours"]))
    part = _write(texts[: len(texts) // 10], folder / "part.jsonl")
    _, tenth = take_turns(WORKER, (model, part, folder), ("ours",), repeats, enough=ENOUGH)
    shorter = min(turn["seconds"] for turn in tenth["ours"])
    yield _alone(f"{name}, time relative to a tenth of the texts", "", best["ours"] / shorter)
    memory = _memory(turns["ours"]) / _memory(tenth["ours"])
    yield _alone(f"{name}, memory relative to a tenth of the texts", "", memory)


def mixed(documents: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """Texts of natural lengths: consecutive words of documents, which are repeated if need be."""
    words = [word for document in documents for word in document.split()]
    rng = np.random.default_rng(seed)
    lengths = rng.lognormal(np.log(_WORDS), 0.8, count).clip(4, 360).astype(int)
    supply = itertools.cycle(words)
    return [" ".join(itertools.islice(supply, int(n))) for n in lengths]


def _alone(name: str, unit: str, value: float) -> Measurement:
    return Measurement(name=name, unit=unit, ours=value)


def _memory(turns: Sequence[Answer]) -> float:
    return max(turn["gigabytes"] for turn in turns)


def _write(texts: Iterable[str], path: Path) -> Path:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


def _tokenizer(options: Options, source: Path) -> Tokenizer:
    if options.tokenizer is not None:
        return Tokenizer.load(options.tokenizer)
    return tokenizers.train(Corpus([source]), _VOCABULARY)

"""Dry run of a retrieval training: its examples, negatives, steps, learning rates and hours."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from modernbert_jax import convert
from modernbert_jax.config import PRESETS, ModernBertConfig
from modernbert_jax.errors import UserError
from modernbert_jax.io import tables
from modernbert_jax.tokenizer import Tokenizer

from ..engine.hyperparameters import Hyperparameters, rise_and_fall
from ..engine.machine import Machine, duration, short_tokens
from . import late, texts
from .columns import QUERY, role_of
from .config import RetrievalConfig
from .data import ExampleSet
from .losses import LossKind

SAMPLE = 1000
"""Examples of a data set whose tokens are counted."""

TEXT_TOKENS = (16, 128)
"""Tokens of a query and of a document where no data is given."""

_HUB_NAMES = {
    **{"modernbert-": "", "gte-modernbert-": "", "ettin-encoder-": "ettin-"},
    "gte-moderncolbert-v1": "base",
}
"""Beginnings of the names of models on the hub, and of presets of their architectures."""


class DataSize(NamedTuple):
    """How much a data set holds."""

    name: str
    examples: int
    tokens: tuple[float, ...]
    """Mean tokens of the text of each column."""


def plan(config: RetrievalConfig, machine: Machine, sizes: Sequence[DataSize]) -> dict[str, Any]:
    """Compute the facts of a run on a machine, as a JSON object.

    FLOPs are those of whole texts without padding. They count the second forward pass of a loss
    that sees the whole batch where that does not fit into one microbatch.
    """
    model = architecture(config.model)
    datasets = [
        _dataset(config, config.loss_of(size.name).loss(config.kind), model, size) for size in sizes
    ]
    steps = sum(dataset["steps"] for dataset in datasets)
    warmup = config.warmup * steps
    hyper = Hyperparameters.create(config.learning_rate, 0.0, warmup=warmup, total=steps)
    last = float(rise_and_fall(hyper, jnp.float32(steps - 1), config.schedule))
    flops = sum(dataset["flops"] for dataset in datasets)
    return {
        "parameters": model.parameter_count(head=config.kind == "sparse"),
        "loss": config.loss.name,
        "datasets": datasets,
        "steps": steps,
        "batch_examples": config.batch_examples,
        "warmup_steps": round(warmup),
        "learning_rate": [config.learning_rate / max(warmup, 1), config.learning_rate, last],
        "schedule": config.schedule,
        "weight_decay": config.weight_decay,
        "eval_every": config.eval_every,
        "flops": flops,
        "hours": machine.hours(flops),
        **machine._asdict(),
    }


def _dataset(
    config: RetrievalConfig, kind: LossKind, model: ModernBertConfig, size: DataSize
) -> dict[str, Any]:
    documents = len(size.tokens) - 1
    batch = min(config.batch_examples, size.examples)
    sequences = size.tokens
    if (
        kind.takes == "scores"
    ):  # query and document in one sequence, without the document's first token
        sequences = tuple(size.tokens[0] + tokens - 1 for tokens in size.tokens[1:])
        drawn = min(config.drawn_negatives, (batch - 1) * documents) if kind.in_batch else 0
        sequences += (sum(sequences) / documents,) * drawn
    tokens = sum(sequences)
    two_passes = not kind.pointwise and tokens * batch > config.microbatch_tokens
    scored = float(config.kind == "sparse")  # tokens that pass through the masked-LM head
    forward = sum(length * model.flops_per_token(length, scored) for length in sequences)
    if kind.takes == "every-score":  # every query's tokens with those of all documents
        width = config.projection_dims or late.WIDTH
        forward += 2 * width * size.tokens[0] * sum(size.tokens[1:]) * batch
    return {
        "name": size.name,
        "loss": kind.name,
        "examples": size.examples,
        "documents": documents,
        "negatives": (
            len(sequences) - 1 if kind.takes == "scores" else _negatives(kind, documents, batch)
        ),
        "steps": math.ceil(math.ceil(size.examples / config.batch_examples) * config.epochs),
        "tokens": [round(n, 1) for n in size.tokens],
        "tokens_of_a_batch": round(tokens * batch),
        "passes": 2 if two_passes else 1,
        "flops": (4.0 if two_passes else 3.0) * forward * size.examples * config.epochs,
    }


def _negatives(kind: LossKind, documents: int, batch: int) -> int:
    """Documents that a query's positive is ranked against; 0 for losses of labels and scores."""
    return batch * documents - 1 if kind.in_batch else documents - 1


def architecture(model: str) -> ModernBertConfig:
    """The architecture of a local checkpoint, or of a published model by its name on the hub.

    Raises:
        UserError: neither is known without a download.
    """
    if Path(model).expanduser().exists():
        return convert.load(model, later=True).config
    name = model.rpartition("/")[2].lower()
    for beginning, own in _HUB_NAMES.items():
        if name.startswith(beginning) and (preset := own + name.removeprefix(beginning)) in PRESETS:
            return PRESETS[preset]
    raise UserError(f"{model}: no such folder, and no model whose size is known; name a folder")


def measure(config: RetrievalConfig) -> list[DataSize]:
    """Read the data sets of a run and count the tokens of some examples of each."""
    tokenizer = convert.tokenizer_of(config.model)
    limit = config.max_length or architecture(config.model).max_position_embeddings
    sets = texts.read(config, config.train, config.train_examples)
    return [_measured(config, data, tokenizer, limit) for data in sets]


def _measured(
    config: RetrievalConfig, data: ExampleSet, tokenizer: Tokenizer, limit: int
) -> DataSize:
    stride = -(-len(data) // SAMPLE)
    chosen = [data[i] for i in range(0, len(data), stride)]
    means = []
    for i in range(data.most_texts):
        column = data.column(i)
        prompt = config.prompt(data.name, column, i)
        own = [prompt + example.texts[i] for example in chosen if i < len(example.texts)]
        longest = config.length(data.name, column, i) or _usual_length(config, i) or limit
        counts = [len(ids) for ids in tokenizer.encode(own, max_length=longest)]
        means.append(_filled_up(config, i, sum(counts) / len(chosen), longest))
    return DataSize(data.name, len(data), tuple(means))


def _usual_length(config: RetrievalConfig, column: int) -> int:
    """The longest text of a column of a new model in tokens; 0 is that of the architecture."""
    return late.LENGTHS[role_of(column)] if config.kind == "late-interaction" else 0


def _filled_up(config: RetrievalConfig, column: int, tokens: float, longest: int) -> float:
    """Tokens of a text of a column, with the mask tokens that fill up queries."""
    if config.kind != "late-interaction" or column:
        return tokens
    fixed = config.query_expansion in ("checkpoint", "fixed")
    least = config.expansion_length if config.query_expansion == "min" else 0
    return float(longest) if fixed else max(tokens, least)


def assumed(
    config: RetrievalConfig, examples: int, text_tokens: Sequence[int], documents: int = 0
) -> list[DataSize]:
    """The size of data that is not at hand.

    Args:
        config: the run.
        examples: number of examples.
        text_tokens: mean tokens of a query and of a document.
        documents: documents of an example; 0 takes those of the configuration's columns, or one.
    """
    query, document = (float(tokens) for tokens in text_tokens)
    longest = config.length("assumed", QUERY, 0) or _usual_length(config, 0)
    query = _filled_up(config, 0, query, longest)
    documents = documents or max(len(config.columns) - 1, 1)
    return [DataSize("assumed", examples, (query, *[document] * documents))]


def text(config: RetrievalConfig, machine: Machine, facts: dict[str, Any]) -> str:
    """Format the facts of `plan` as tables."""
    datasets = facts["datasets"]
    rows = [["data set", *(dataset["name"] for dataset in datasets)]]
    for label, cell in _ROWS.items():
        if label == "loss" and not config.losses:
            continue
        rows.append([label, *(cell(dataset) for dataset in datasets)])
    first, peak, last = facts["learning_rate"]
    return "\n".join(
        [
            f"{config.kind}: {facts['parameters']:,} parameters, starts from {config.model},"
            f" loss {facts['loss']}",
            *tables.lines(rows),
            "",
            f"{facts['steps']:,} steps of {facts['batch_examples']:,} examples",
            f"learning rate {first:.3g} to {peak:.3g} in {facts['warmup_steps']:,} steps, then"
            f" {facts['schedule']} to {last:.3g}; weight decay {facts['weight_decay']:g}",
            f"{facts['flops']:.3g} FLOPs: {duration(facts['hours'])} on {machine}",
        ]
    )


_ROWS = {
    "loss": lambda s: s["loss"],
    "examples": lambda s: f"{s['examples']:,}",
    "documents of an example": lambda s: f"{s['documents']:,}",
    "negatives of a query": lambda s: f"{s['negatives']:,}" if s["negatives"] else "-",
    "steps": lambda s: f"{s['steps']:,}",
    "tokens of a query": lambda s: f"{s['tokens'][0]:,.1f}",
    "tokens of a document": lambda s: f"{sum(s['tokens'][1:]) / s['documents']:,.1f}",
    "tokens of a batch": lambda s: short_tokens(s["tokens_of_a_batch"]),
    "passes over a batch": lambda s: f"{s['passes']}",
    "FLOPs": lambda s: f"{s['flops']:.3g}",
}

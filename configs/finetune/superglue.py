"""Tasks of SuperGLUE (Wang et al. 2019), and SWAG, as the ModernBERT research code learns them.

Columns and labels are those of the public data sets; figures, batch sizes included, those of the
research code's evaluation, where COPA starts from the model of SWAG. It has no WSC: that recipe is
ours, with the figures of WiC and more epochs.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from modernbert_jax.config import Runtime
from modernbert_jax.train.finetune.config import FinetuneConfig, Intermediate
from modernbert_jax.train.tasks import Choice, Classification, Task

LENGTH = 256
"""Tokens in a sequence."""

_BOOLEAN = ("False", "True")


class Entry(NamedTuple):
    """A task with its figures."""

    task: Task
    learning_rate: float
    weight_decay: float
    batch_examples: int
    epochs: float
    start: str = ""
    """The recipe whose model it starts from."""


def _label(*columns: str, labels: tuple[str, ...] = _BOOLEAN, **options: str) -> Task:
    return Classification(columns=columns, labels=labels, max_length=LENGTH, **options)


SUPERGLUE: dict[str, Entry] = {
    "boolq": Entry(_label("question", "passage"), 5e-5, 5e-6, 48, 5),
    "cb": Entry(
        _label("premise", "hypothesis", labels=("entailment", "contradiction", "neutral")),
        1e-5,
        1e-5,
        16,
        30,
    ),
    "copa": Entry(
        Choice(context="{premise} {question}", options=("choice1", "choice2"), max_length=LENGTH),
        1e-5,
        5e-6,
        16,
        30,
        start="swag",
    ),
    "multirc": Entry(
        _label(
            "paragraph", "{question} {answer}", group_column="idx.question", best_metric="multirc"
        ),
        5e-5,
        5e-6,
        48,
        6,
    ),
    "wic": Entry(_label("{word}: {sentence1}", "{word}: {sentence2}"), 3e-5, 3e-6, 16, 3),
    "wsc": Entry(_label("text", "{span2_text}: {span1_text}"), 3e-5, 3e-6, 16, 20),
    "swag": Entry(
        Choice(
            context="sent1",
            options=tuple(f"{{sent2}} {{ending{i}}}" for i in range(4)),
            max_length=LENGTH,
        ),
        1e-5,
        5e-6,
        32,
        1,
    ),
}


def recipe(name: str) -> FinetuneConfig:
    """The recipe of a key of `SUPERGLUE`."""
    entry = SUPERGLUE[name]
    return FinetuneConfig(
        task=entry.task,
        output=name,
        learning_rate=entry.learning_rate,
        weight_decay=entry.weight_decay,
        batch_examples=entry.batch_examples,
        epochs=entry.epochs,
        optimizer="stable_adamw",
        pooling="cls",
        attention_dropout=0.1,
        warmup=0.1,
        schedule="linear",
        runtime=Runtime(dtype="bfloat16"),
        intermediate=Intermediate(recipe=entry.start, output=entry.start),
    )


RECIPES: dict[str, Callable[[], FinetuneConfig]] = {
    name: functools.partial(recipe, name) for name in SUPERGLUE
}

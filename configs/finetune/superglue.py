"""Tasks of SuperGLUE (Wang et al. 2019), and SWAG, with the research code's settings.

Columns and labels are those of the public data sets. Hyperparameters, batch sizes included, are
those of the research code's evaluation (`src/evals/` of AnswerDotAI/ModernBERT), where COPA starts
from the model of SWAG. It has no WSC: that recipe is ours, with the hyperparameters of WiC and more
epochs.
"""

import functools
from typing import Any, NamedTuple

from modernbert_jax.config import Runtime
from modernbert_jax.train.finetune.config import FinetuneConfig, Intermediate
from modernbert_jax.train.tasks import Classification, MultipleChoice, Task

from .. import Preset

LENGTH = 256
"""Longest sequence, in tokens."""

_BOOLEAN = ("False", "True")


class Recipe(NamedTuple):
    """A task with its hyperparameters."""

    summary: str
    task: Task
    learning_rate: float
    weight_decay: float
    batch_examples: int
    epochs: float
    start: str = ""
    """Name of the recipe whose model it starts from."""


def _label(*columns: str, labels: tuple[str, ...] = _BOOLEAN, **options: Any) -> Task:
    return Classification(columns=columns, labels=labels, max_length=LENGTH, **options)


SUPERGLUE: dict[str, Recipe] = {
    "boolq": Recipe(
        "BoolQ: answers yes or no from a passage.", _label("question", "passage"), 5e-5, 5e-6, 48, 5
    ),
    "cb": Recipe(
        "CommitmentBank: entailment in three classes.",
        _label("premise", "hypothesis", labels=("entailment", "contradiction", "neutral")),
        1e-5,
        1e-5,
        16,
        30,
    ),
    "copa": Recipe(
        "COPA: cause or effect of a premise. Starts from SWAG.",
        MultipleChoice(
            context="{premise} {question}", options=("choice1", "choice2"), max_length=LENGTH
        ),
        1e-5,
        5e-6,
        16,
        30,
        start="swag",
    ),
    "multirc": Recipe(
        "MultiRC: which answers to a question about a paragraph are right?",
        _label(
            "paragraph", "{question} {answer}", group_column="idx.question", best_metric="multirc"
        ),
        5e-5,
        5e-6,
        48,
        6,
    ),
    "wic": Recipe(
        "WiC: has a word the same meaning in two sentences?",
        _label("{word}: {sentence1}", "{word}: {sentence2}"),
        3e-5,
        3e-6,
        16,
        3,
    ),
    "wsc": Recipe(
        "WSC: does a pronoun refer to a noun?",
        _label("text", "{span2_text}: {span1_text}"),
        3e-5,
        3e-6,
        16,
        20,
    ),
    "swag": Recipe(
        "SWAG: how does a situation continue?",
        MultipleChoice(
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


def config(name: str) -> FinetuneConfig:
    """The configuration of a key of `SUPERGLUE`."""
    recipe = SUPERGLUE[name]
    return FinetuneConfig(
        task=recipe.task,
        output=name,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        batch_examples=recipe.batch_examples,
        epochs=recipe.epochs,
        optimizer="stable_adamw",
        pooling="cls",
        attention_dropout=0.1,
        warmup=0.1,
        schedule="linear",
        runtime=Runtime(dtype="bfloat16"),
        intermediate=Intermediate(recipe=recipe.start, output=recipe.start),
    )


PRESETS: dict[str, Preset] = {
    name: Preset(recipe.summary, functools.partial(config, name))
    for name, recipe in SUPERGLUE.items()
}

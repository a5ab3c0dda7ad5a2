"""The nine tasks of GLUE (Wang et al. 2018) with ModernBERT's settings (Warner et al. 2024, 3.1).

Columns and labels are those of the public data sets. Batches have 64 examples. Learning rate,
weight decay and epochs are the result of the paper's grid search for the base model (Table 6 of
arXiv 2412.13663v2); `FOR_LARGE` has those of the large model. RTE, MRPC and STS-B start from the
model of MNLI. Settings that the paper omits follow the research code: sequences of 256 tokens, a
warm-up over a tenth of the steps, linear decay to zero, dropout after attention, the first token as
the document's vector. The paper also omits WNLI, which has the hyperparameters of RTE here.
"""

import functools
from typing import NamedTuple

from modernbert_jax.config import Runtime
from modernbert_jax.train.finetune.config import FinetuneConfig, Intermediate
from modernbert_jax.train.tasks import Classification, Regression, Task

from .. import Preset

LENGTH = 256
"""Longest sequence, in tokens."""


class Hyperparameters(NamedTuple):
    """Result of the grid search: a row of Table 6 for one size of the model."""

    learning_rate: float
    weight_decay: float
    epochs: float


class Recipe(NamedTuple):
    """A task with its hyperparameters."""

    summary: str
    task: Task
    hyperparameters: Hyperparameters
    start: str = ""
    """Name of the recipe whose model it starts from."""


def _label(columns: tuple[str, ...], labels: tuple[str, ...], metric: str = "accuracy") -> Task:
    return Classification(columns=columns, labels=labels, max_length=LENGTH, best_metric=metric)


_ENTAILMENT = ("entailment", "not_entailment")
_STS = Regression(columns=("sentence1", "sentence2"), max_length=LENGTH, best_metric="spearman")

GLUE: dict[str, Recipe] = {
    "cola": Recipe(
        "CoLA: is a sentence acceptable?",
        _label(("sentence",), ("unacceptable", "acceptable"), "matthews_correlation"),
        Hyperparameters(8e-5, 1e-6, 5),
    ),
    "sst2": Recipe(
        "SST-2: sentiment of a movie review.",
        _label(("sentence",), ("negative", "positive")),
        Hyperparameters(8e-5, 1e-5, 2),
    ),
    "mrpc": Recipe(
        "MRPC: do two sentences mean the same? Starts from MNLI.",
        _label(("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
        Hyperparameters(5e-5, 5e-6, 10),
        start="mnli",
    ),
    "stsb": Recipe(
        "STS-B: similarity of two sentences. Starts from MNLI.",
        _STS,
        Hyperparameters(8e-5, 5e-6, 10),
        start="mnli",
    ),
    "qqp": Recipe(
        "QQP: do two questions mean the same?",
        _label(("question1", "question2"), ("not_duplicate", "duplicate")),
        Hyperparameters(5e-5, 5e-6, 10),
    ),
    "mnli": Recipe(
        "MNLI: does a premise entail a hypothesis?",
        _label(("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
        Hyperparameters(5e-5, 5e-6, 1),
    ),
    "qnli": Recipe(
        "QNLI: does a sentence answer a question?",
        _label(("question", "sentence"), _ENTAILMENT),
        Hyperparameters(8e-5, 5e-6, 2),
    ),
    "rte": Recipe(
        "RTE: does one sentence entail another? Starts from MNLI.",
        _label(("sentence1", "sentence2"), _ENTAILMENT),
        Hyperparameters(5e-5, 1e-5, 3),
        start="mnli",
    ),
    "wnli": Recipe(
        "WNLI: what does a pronoun refer to?",
        _label(("sentence1", "sentence2"), ("not_entailment", "entailment")),
        Hyperparameters(5e-5, 1e-5, 3),
    ),
}

FOR_LARGE: dict[str, Hyperparameters] = {
    "cola": Hyperparameters(3e-5, 8e-6, 5),
    "sst2": Hyperparameters(1e-5, 1e-6, 3),
    "mrpc": Hyperparameters(8e-5, 5e-6, 2),
    "stsb": Hyperparameters(8e-5, 1e-5, 10),
    "qqp": Hyperparameters(5e-5, 8e-6, 2),
    "mnli": Hyperparameters(3e-5, 1e-5, 1),
    "qnli": Hyperparameters(3e-5, 5e-6, 2),
    "rte": Hyperparameters(5e-5, 8e-6, 3),
}


def config(name: str, large: bool = False) -> FinetuneConfig:
    """The configuration of a key of `GLUE`, for the base or the large model.

    MNLI has two validation sets: pass the matched one as validation, the mismatched one as test.
    """
    recipe = GLUE[name]
    size = "-large" if large else ""
    start = recipe.start and recipe.start + size
    return FinetuneConfig(
        task=recipe.task,
        model=f"answerdotai/ModernBERT-{'large' if large else 'base'}",
        output=name + size,
        batch_examples=64,
        optimizer="stable_adamw",
        pooling="cls",
        attention_dropout=0.1,
        warmup=0.1,
        schedule="linear",
        runtime=Runtime(dtype="bfloat16"),
        intermediate=Intermediate(recipe=start, output=start),
        **(FOR_LARGE[name] if large else recipe.hyperparameters)._asdict(),
    )


PRESETS: dict[str, Preset] = {
    **{name: Preset(GLUE[name].summary, functools.partial(config, name)) for name in GLUE},
    **{
        f"{name}-large": Preset(
            f"{GLUE[name].summary} For ModernBERT large.",
            functools.partial(config, name, large=True),
        )
        for name in FOR_LARGE
    },
}

"""The nine tasks of GLUE (Wang et al. 2018) as ModernBERT learned them (Warner et al. 2024, 3.1).

Columns and labels are those of the public data set. Batches have 64 examples; learning rate, weight
decay and epochs are those that the paper's grid search chose for the base model, and `FOR_LARGE`
has the large one's. RTE, MRPC and STS-B start from the model of MNLI. What the paper leaves out
follows the research code: sequences of 256 tokens, a tenth of the updates to warm up, then a linear
fall to zero, dropout after attention, the first token as the document's vector. WNLI, which the
paper leaves out too, has the figures of RTE.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

from modernbert_jax.config import Runtime
from modernbert_jax.train.finetune.config import FinetuneConfig, Intermediate
from modernbert_jax.train.tasks import Classification, Regression, Task

LENGTH = 256
"""Tokens in a sequence."""


class Figures(NamedTuple):
    """What the grid search chose."""

    learning_rate: float
    weight_decay: float
    epochs: float


class Entry(NamedTuple):
    """A task with its figures."""

    task: Task
    figures: Figures
    start: str = ""
    """The recipe whose model it starts from."""


def _label(columns: tuple[str, ...], labels: tuple[str, ...], metric: str = "accuracy") -> Task:
    return Classification(columns=columns, labels=labels, max_length=LENGTH, best_metric=metric)


_ENTAILMENT = ("entailment", "not_entailment")
_STS = Regression(columns=("sentence1", "sentence2"), max_length=LENGTH, best_metric="spearman")

GLUE: dict[str, Entry] = {
    "cola": Entry(
        _label(("sentence",), ("unacceptable", "acceptable"), "matthews_correlation"),
        Figures(8e-5, 1e-6, 5),
    ),
    "sst2": Entry(_label(("sentence",), ("negative", "positive")), Figures(8e-5, 1e-5, 2)),
    "mrpc": Entry(
        _label(("sentence1", "sentence2"), ("not_equivalent", "equivalent")),
        Figures(5e-5, 5e-6, 10),
        start="mnli",
    ),
    "stsb": Entry(_STS, Figures(8e-5, 5e-6, 10), start="mnli"),
    "qqp": Entry(
        _label(("question1", "question2"), ("not_duplicate", "duplicate")),
        Figures(5e-5, 5e-6, 10),
    ),
    "mnli": Entry(
        _label(("premise", "hypothesis"), ("entailment", "neutral", "contradiction")),
        Figures(5e-5, 5e-6, 1),
    ),
    "qnli": Entry(_label(("question", "sentence"), _ENTAILMENT), Figures(8e-5, 5e-6, 2)),
    "rte": Entry(
        _label(("sentence1", "sentence2"), _ENTAILMENT), Figures(5e-5, 1e-5, 3), start="mnli"
    ),
    "wnli": Entry(
        _label(("sentence1", "sentence2"), ("not_entailment", "entailment")),
        Figures(5e-5, 1e-5, 3),
    ),
}

FOR_LARGE: dict[str, Figures] = {
    "cola": Figures(3e-5, 8e-6, 5),
    "sst2": Figures(1e-5, 1e-6, 3),
    "mrpc": Figures(8e-5, 5e-6, 2),
    "stsb": Figures(8e-5, 1e-5, 10),
    "qqp": Figures(5e-5, 5e-6, 2),
    "mnli": Figures(3e-5, 1e-5, 1),
    "qnli": Figures(3e-5, 5e-6, 2),
    "rte": Figures(5e-5, 8e-6, 3),
}


def recipe(name: str, large: bool = False) -> FinetuneConfig:
    """The recipe of a key of `GLUE`, with the figures of the base or of the large model.

    MNLI has two validation sets: give the matched one as validation and the mismatched as test.
    """
    task, figures, start = GLUE[name]
    size = "-large" if large else ""
    return FinetuneConfig(
        task=task,
        model=f"answerdotai/ModernBERT-{'large' if large else 'base'}",
        output=name + size,
        batch_examples=64,
        optimizer="stable_adamw",
        pooling="cls",
        attention_dropout=0.1,
        warmup=0.1,
        schedule="linear",
        runtime=Runtime(dtype="bfloat16"),
        intermediate=Intermediate(recipe=start and start + size, output=start and start + size),
        **(FOR_LARGE[name] if large else figures)._asdict(),
    )


RECIPES: dict[str, Callable[[], FinetuneConfig]] = {
    **{name: functools.partial(recipe, name) for name in GLUE},
    **{f"{name}-large": functools.partial(recipe, name, large=True) for name in FOR_LARGE},
}

"""Named entities and answers in a text. Nothing is published for ModernBERT: the figures are ours.

`ner` reads words and tags as CoNLL-2003 has them (columns `tokens` and `ner_tags`, or a `.conll`
file) and takes its tags from the training data; `squad` and `squad2` read the public data sets.
"""

import functools
from collections.abc import Callable

from modernbert_jax.config import Runtime
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.tasks import QuestionAnswering, Task, TokenClassification


def _recipe(name: str, task: Task, **figures: float) -> FinetuneConfig:
    return FinetuneConfig(
        task=task, output=name, runtime=Runtime(dtype="bfloat16"), weight_decay=1e-5, **figures
    )


def ner() -> FinetuneConfig:
    """Entities in words that are tagged in the scheme IOB2."""
    task = TokenClassification(scheme="IOB2", max_length=512)
    return _recipe("ner", task, learning_rate=8e-5, batch_examples=32, epochs=5.0)


def squad(no_answer: bool = False) -> FinetuneConfig:
    """SQuAD 1.1, where every text has the answer, or 2.0, where some have none."""
    task = QuestionAnswering(max_length=512, stride=128, no_answer=no_answer)
    name = "squad2" if no_answer else "squad"
    return _recipe(name, task, learning_rate=5e-5, batch_examples=32, epochs=3.0)


RECIPES: dict[str, Callable[[], FinetuneConfig]] = {
    "ner": ner,
    "squad": squad,
    "squad2": functools.partial(squad, no_answer=True),
}

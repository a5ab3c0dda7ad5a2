"""Named entities, and answers in a text. Hyperparameters are ours: none are published.

`ner` reads words and tags in CoNLL-2003's form (columns `tokens` and `ner_tags`, or a `.conll`
file) and takes its tags from the training data. `squad` and `squad2` read the public data sets.
"""

import functools
from typing import Any

from modernbert_jax.config import Runtime
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.tasks import QuestionAnswering, Task, TokenClassification

from .. import Preset


def _config(name: str, task: Task, **hyperparameters: Any) -> FinetuneConfig:
    return FinetuneConfig(
        task=task,
        output=name,
        runtime=Runtime(dtype="bfloat16"),
        weight_decay=1e-5,
        **hyperparameters,
    )


def ner() -> FinetuneConfig:
    """Named entities in words that are tagged in the scheme IOB2."""
    task = TokenClassification(scheme="IOB2", max_length=512)
    return _config("ner", task, learning_rate=8e-5, batch_examples=32, epochs=5.0)


def squad(no_answer: bool = False) -> FinetuneConfig:
    """SQuAD 1.1, or 2.0, where some questions have no answer."""
    task = QuestionAnswering(max_length=512, stride=128, no_answer=no_answer)
    name = "squad2" if no_answer else "squad"
    return _config(name, task, learning_rate=5e-5, batch_examples=32, epochs=3.0)


PRESETS: dict[str, Preset] = {
    "ner": Preset("Named entities in words with IOB2 tags, as in CoNLL-2003.", ner),
    "squad": Preset("SQuAD 1.1: the span of a text that answers a question.", squad),
    "squad2": Preset(
        "SQuAD 2.0: the same, where some questions have no answer.",
        functools.partial(squad, no_answer=True),
    ),
}

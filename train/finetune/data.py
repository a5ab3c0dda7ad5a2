"""The examples of a run: read, labelled, split and tokenised."""

import dataclasses
from collections.abc import Sequence

from modernbert_jax.errors import UserError
from modernbert_jax.tokenizer import Tokenizer

from ..tasks import Example, Records, Task, balanced_weights, positive_weights, read, split
from .config import FinetuneConfig


@dataclasses.dataclass(frozen=True)
class Data:
    """Examples of a task whose labels are known."""

    task: Task
    train: Sequence[Example]
    validation: Sequence[Example] = ()
    test: Sequence[Example] = ()

    @classmethod
    def read(cls, config: FinetuneConfig, tokenizer: Tokenizer) -> "Data":
        """Reads the files of a run. Raises `UserError` for what is wrong with them."""
        if not config.train:
            raise UserError("train is empty; name a file of labelled examples with --train")
        records = read([config.train])
        task = config.task.with_labels(records)
        held_out: Records | None = None
        if config.validation:
            held_out = read([config.validation])
        elif config.validation_split:
            records, held_out = split(records, task, config.validation_split)
        test = read([config.test]) if config.test else None
        made = [task.examples(r, tokenizer) if r else () for r in (records, held_out, test)]
        if not made[0]:
            raise UserError(f"{config.train}: has no examples to train on")
        return cls(task, *made)


def class_weights(config: FinetuneConfig, data: Data) -> tuple[float, ...]:
    """Weights of the classes in the loss; none where all count alike. Raises `UserError`.

    In a multi-label task each is that of a label's positives beside its negatives.
    """
    if config.class_weights == "none":
        return ()
    if given := config.given_class_weights:
        if len(given) != data.task.outputs:
            names = ", ".join(data.task.label_names)
            raise UserError(f"class_weights has {len(given)} numbers; the labels are {names}")
        return given
    if data.task.kind == "multilabel":
        return tuple(map(float, positive_weights(data.train)))
    return tuple(map(float, balanced_weights(data.train, data.task.outputs)))

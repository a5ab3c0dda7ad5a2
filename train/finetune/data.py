"""The examples of a run: read, labelled, split and tokenised."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.tokenizer import Tokenizer

from ..tasks import Example, Records, Task
from ..tasks.read import read
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
            records, held_out = _split(records, config.validation_split)
        test = read([config.test]) if config.test else None
        made = [task.examples(r, tokenizer) if r else () for r in (records, held_out, test)]
        if not made[0]:
            raise UserError(f"{config.train}: has no examples to train on")
        return cls(task, *made)


def class_weights(config: FinetuneConfig, data: Data) -> tuple[float, ...]:
    """Weights of the classes in the loss; none where all count alike. Raises `UserError`."""
    if config.class_weights == "none":
        return ()
    classes = data.task.outputs
    if given := config.given_class_weights:
        if len(given) != classes:
            names = ", ".join(data.task.label_names)
            raise UserError(f"class_weights has {len(given)} numbers; the labels are {names}")
        return given
    targets = np.concatenate([np.atleast_1d(example.target) for example in data.train])
    counts = np.bincount(targets[targets >= 0], minlength=classes)
    return tuple(float(x) for x in counts.sum() / (classes * np.maximum(counts, 1)))


def _split(records: Records, share: float) -> tuple[Records, Records]:
    """Every n-th record is held out."""
    every = max(2, round(1 / share))
    kept = [r for i, r in enumerate(records) if i % every]
    apart = [r for i, r in enumerate(records) if not i % every]
    return Records(kept, records.names), Records(apart, records.names)

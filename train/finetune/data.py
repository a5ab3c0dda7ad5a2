"""Examples of a run: reading, labelling, splitting and tokenising its files."""

import dataclasses
from collections.abc import Sequence

from modernbert_jax.errors import UserError
from modernbert_jax.tokenizer import Tokenizer

from ..tasks import Example, Records, Task, balanced_weights, positive_weights, read, split
from .config import FinetuneConfig


@dataclasses.dataclass(frozen=True)
class Data:
    """Tokenised examples of a run."""

    task: Task
    """The task, with its labels."""
    train: Sequence[Example]
    """Training examples; at least one."""
    validation: Sequence[Example] = ()
    """Validation examples; may be empty."""
    test: Sequence[Example] = ()
    """Test examples; may be empty."""

    @classmethod
    def read(cls, config: FinetuneConfig, tokenizer: Tokenizer) -> "Data":
        """Read the files of a run.

        Raises:
            UserError: no training file, or files with problems.
        """
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
        splits = [task.examples(r, tokenizer) if r else () for r in (records, held_out, test)]
        if not splits[0]:
            raise UserError(f"{config.train}: has no examples to train on")
        return cls(task, *splits)


def class_weights(config: FinetuneConfig, data: Data) -> tuple[float, ...]:
    """Return the weights of the classes in the loss; empty if all are equal.

    For a multi-label task they are the weights of positives relative to negatives, per label.

    Raises:
        UserError: a number of weights that is not the number of labels.
    """
    if config.class_weights == "none":
        return ()
    if weights := config.given_class_weights:
        if len(weights) != data.task.outputs:
            names = ", ".join(data.task.label_names)
            raise UserError(f"class_weights has {len(weights)} numbers; the labels are {names}")
        return weights
    if data.task.kind == "multilabel":
        return tuple(map(float, positive_weights(data.train)))
    return tuple(map(float, balanced_weights(data.train, data.task.outputs)))

"""What a run has read, in lines for the user: examples, labels, lengths, and the loss to beat."""

from collections.abc import Sequence

import numpy as np

from modernbert_jax.errors import clipped

from ..tasks import Example, Task, class_counts
from . import losses
from .baseline import constant_loss
from .config import FinetuneConfig
from .data import Data

_LISTED = 12
"""Labels that are listed with their counts."""

_LONGEST = 40
"""Characters of a label's name that are printed."""

_GUESSES = {
    "regression": "by the mean of the numbers alone",
    "questions": "by guessing tokens of the window",
    "choice": "by guessing an option",
}
"""Predictions without reading the texts, where they are not by frequency."""


def lines(config: FinetuneConfig, data: Data, loss: losses.TaskLoss) -> list[str]:
    """Describe the data of a run.

    Args:
        config: the run.
        data: its examples.
        loss: the loss in training, whose baseline is computed.
    """
    task = data.task
    table = {"train": _examples(data.train, task), "validation": _validation(config, data)}
    if data.test:
        table["test"] = _examples(data.test, task)
    table |= _targets(task, data.train)
    table["to beat"] = f"loss {constant_loss(loss, data.train, task.outputs):.4f}"
    if task.kind == "classification":
        counts = class_counts(data.train, task.outputs)
        table["to beat"] += f" and accuracy {counts.max() / counts.sum():.4f}"
    table["to beat"] += f", {_GUESSES.get(task.kind, 'by the frequencies of the labels alone')}"
    return [f"{label:14}{text}" for label, text in table.items()]


def _validation(config: FinetuneConfig, data: Data) -> str:
    if not data.validation:
        return "none; the model of the last step is exported"
    held_out = "" if config.validation else f"; held out, {config.validation_split:.0%} of train"
    return _examples(data.validation, data.task) + held_out


def _examples(examples: Sequence[Example], task: Task) -> str:
    """Number of examples, and the lengths of their sequences in tokens."""
    lengths = [len(ids) for example in examples for ids in example.sequences]
    text = f"{len(examples):,} examples"
    if len(lengths) > len(examples):
        kind = "options" if task.kind == "choice" else "windows"
        text += f" in {len(lengths):,} {kind}"
    text += f", {min(lengths):,} to {max(lengths):,} tokens, mean {np.mean(lengths):,.0f}"
    cut = sum(example.cut for example in examples)
    share = f" ({cut / len(examples):.1%})" if cut else ""
    return f"{text}; {cut or 'none'}{share} cut at max_length {task.max_length:,}"


def _targets(task: Task, examples: Sequence[Example]) -> dict[str, str]:
    """How often each label occurs, or the range of the numbers."""
    if task.kind == "regression":
        numbers = np.array([example.target for example in examples])
        spread = f"mean {numbers.mean():.4g}, deviation {numbers.std():.4g}"
        return {"numbers": f"{numbers.min():g} to {numbers.max():g}, {spread}"}
    if task.kind == "questions":
        answered = sum(bool(example.source.answers) for example in examples)
        return {"questions": f"{answered:,} with an answer, {len(examples) - answered:,} without"}
    counts = _counts(task, examples)
    shown = list(counts)
    if len(counts) > _LISTED:
        shown = sorted(counts, key=lambda name: -counts[name])[:_LISTED]
    more = f", ... ({len(counts)} in all)" if len(counts) > _LISTED else ""
    listed = ", ".join(f"{_short(name)}: {counts[name]:,}" for name in shown) + more
    table = {"right option" if task.kind == "choice" else "labels": listed}
    if absent := [name for name, count in counts.items() if not count]:
        table["not in train"] = ", ".join(map(_short, absent[:_LISTED]))
    return table


def _counts(task: Task, examples: Sequence[Example]) -> dict[str, int]:
    """Occurrences of each label; in tagged texts those of its tokens that are learned."""
    if task.kind == "multilabel":
        counts = np.sum([example.target for example in examples], axis=0).astype(int)
        return dict(zip(task.label_names, counts.tolist(), strict=True))
    names = task.label_names
    if task.kind == "choice":
        most = max(len(example.sequences) for example in examples)
        names = getattr(task, "labels", ()) or tuple(map(str, range(most)))
    return dict(zip(names, class_counts(examples, len(names)).tolist(), strict=True))


def _short(name: str) -> str:
    """A label's name as it fits into a line of a terminal."""
    return clipped(name, _LONGEST)

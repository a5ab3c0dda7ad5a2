"""What a run has read, in lines for the user: examples, lengths, negatives and batches."""

from collections.abc import Sequence

import numpy as np

from .config import RetrievalConfig
from .sampling import Sampler
from .texts import TextSet


def lines(
    config: RetrievalConfig,
    train: Sequence[TextSet],
    validation: Sequence[TextSet],
    sampler: Sampler,
) -> list[str]:
    """Describe the data of a run.

    Args:
        config: the run.
        train: data sets of training.
        validation: data sets of validation.
        sampler: of the run.
    """
    table = [(f"train {dataset.name}", examples(dataset)) for dataset in train]
    table += [(f"validation {dataset.name}", examples(dataset)) for dataset in validation]
    if not validation and not config.evaluation:
        table.append(("validation", "none; the model of the last step is exported"))
    table += [
        ("evaluation", f"{folder}, {config.evaluation_split}") for folder in config.evaluation
    ]
    for name, prompt in config.prompts.items():
        table.append((f"prompt {name}", repr(prompt)))
    table += [(f"loss of {name}", own.name) for name, own in config.losses.items()]
    table.append(("batches", _batches(config, train, sampler)))
    width = max(len(label) for label, _ in table) + 2
    return [f"{label:{width}}{text}" for label, text in table]


def examples(dataset: TextSet) -> str:
    """Number of examples of a data set, negatives, and the lengths of its sequences in tokens."""
    lengths = dataset.every_length
    documents = (dataset.texts >= 0).sum(1) - 1
    text = f"{len(dataset):,} examples"
    if dataset.kind == "label":
        text += " with a label"
    elif dataset.kind == "scores":
        text += f" with scores of {_range(documents)} documents"
    elif documents.max() > 1:
        text += f" with {_range(documents - 1)} negatives"
    text += f", {lengths.min():,} to {lengths.max():,} tokens, mean {lengths.mean():,.0f}"
    share = f" ({dataset.cut / len(lengths):.1%})" if dataset.cut else ""
    return f"{text}; {dataset.cut or 'none'}{share} of {len(lengths):,} texts cut"


def _batches(config: RetrievalConfig, train: Sequence[TextSet], sampler: Sampler) -> str:
    text = f"{sampler.batches(0):,} of up to {config.batch_examples:,} examples an epoch"
    ranked = [x for x in train if config.loss_of(x.name).loss(config.kind).in_batch]
    if ranked and config.kind != "reranker":
        most = max(min(config.batch_examples, len(x)) * (x.columns - 1) - 1 for x in ranked)
        text += f", up to {most:,} negatives a query"
    if left_out := sampler.left_out(0):
        text += f"; {left_out:,} examples whose texts repeat too often are left out of an epoch"
    return text


def _range(numbers: np.ndarray) -> str:
    low, high = int(numbers.min()), int(numbers.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"

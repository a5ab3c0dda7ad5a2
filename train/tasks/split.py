"""A stratified validation set from the training records, and weights for rare classes."""

import hashlib
import json
import math
from collections.abc import Sequence

import numpy as np

from modernbert_jax.errors import UserError

from .example import IGNORED, Example
from .records import Problems, Record, Records, columns_of
from .task import Task


def split(records: Records, task: Task, fraction: float, seed: int = 0) -> tuple[Records, Records]:
    """Split records into training and validation records, both in the original order.

    Labels have the same shares in both, as nearly as whole records allow. The split depends on the
    seed and on what the model reads, not on the order of records or files. Records with the same
    texts stay together.

    Args:
        records: All records.
        task: Defines what is read and what is stratified.
        fraction: Share of the records for validation, above 0 and below 1.
        seed: Other seeds give other splits.

    Raises:
        UserError: fraction out of range, a missing column, records without labels, or an empty
            side.
    """
    if not 0 < fraction < 1:
        raise UserError(f"validation_split is {fraction}; it must be between 0 and 1")
    task.check_columns(records)
    problems = Problems()
    strata: dict[str, dict[str, list[int]]] = {}
    for i, record in enumerate(records):
        with problems.at(record.place):
            groups = strata.setdefault(task.stratum(record), {})
            groups.setdefault(_digest(record, task, seed), []).append(i)
    problems.check()
    validation = set()
    for stratum, wanted in _shares(strata, fraction).items():
        for _, group in sorted(strata[stratum].items()):
            if len(group) <= wanted:
                validation.update(group)
                wanted -= len(group)
    if not validation or len(validation) == len(records):
        raise UserError(
            f"validation_split {fraction} of {len(records)} records leaves nothing to"
            f" {'train' if validation else 'validate'} on; give a file of validation records"
        )
    sides: tuple[list[Record], list[Record]] = ([], [])
    for i, record in enumerate(records):
        sides[i in validation].append(record)
    return Records(sides[0], records.names), Records(sides[1], records.names)


def _shares(strata: dict[str, dict[str, list[int]]], fraction: float) -> dict[str, int]:
    """Validation records of each stratum: whole numbers, by largest remainders."""
    sizes = {name: sum(map(len, groups.values())) for name, groups in strata.items()}
    exact = {name: fraction * size for name, size in sizes.items()}
    shares = {name: math.floor(share) for name, share in exact.items()}
    left = round(fraction * sum(sizes.values())) - sum(shares.values())
    by_remainder = sorted(sizes, key=lambda name: (shares[name] - exact[name], name))
    for name in by_remainder[: max(left, 0)]:
        shares[name] = min(shares[name] + 1, sizes[name] - 1)
    return shares


def _digest(record: Record, task: Task, seed: int) -> str:
    """A hash of what the model reads of a record."""
    columns = dict.fromkeys(c for source in task.inputs for c in columns_of(source))
    read = [record.get(c) for c in columns] or {
        k: v for k, v in record.values.items() if k != task.id_column
    }
    content = json.dumps([seed, read], sort_keys=True, default=str)
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def class_counts(examples: Sequence[Example], classes: int) -> np.ndarray:
    """How often each class occurs, int64 [classes], among indices or tuples of arrays of them."""
    parts = (e.target if isinstance(e.target, tuple) else (e.target,) for e in examples)
    targets = np.concatenate([np.ravel(target) for part in parts for target in part])
    return np.bincount(targets[targets != IGNORED].astype(np.int64), minlength=classes)


def balanced_weights(examples: Sequence[Example], classes: int) -> np.ndarray:
    """Class weights n / (k n_c) that give all classes the same influence.

    This is scikit-learn's "balanced", with k the number of classes that occur.

    Args:
        examples: Examples whose targets are class indices, or tuples of arrays of them.
        classes: Number of classes.

    Returns:
        float32 [classes]; 1 for classes that do not occur.
    """
    counts = class_counts(examples, classes)
    occurs = counts > 0
    weights = np.ones(classes, np.float32)
    weights[occurs] = counts.sum() / (occurs.sum() * counts[occurs])
    return weights


def positive_weights(examples: Sequence[Example]) -> np.ndarray:
    """Number of negatives over positives of each label of a multi-label task: float32 [labels].

    This is `pos_weight` of PyTorch's binary cross-entropy; 1 for labels that never or always occur.
    """
    targets = np.stack([e.target for e in examples])
    positive = targets.sum(0)
    negative = len(targets) - positive
    mixed = (positive > 0) & (negative > 0)
    return np.where(mixed, negative / np.maximum(positive, 1), 1).astype(np.float32)

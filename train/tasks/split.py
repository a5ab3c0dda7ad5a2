"""A validation set out of the training records, and weights for classes that are rare."""

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
    """Training and validation records, both in the given order.

    Labels have the same shares in both, as nearly as whole records allow. Which record goes where
    follows from the seed and what the model reads of it, not from its place: other orders and other
    files give the same split, and records with the same texts stay together.

    Args:
        records: all of them.
        task: says what is read and what is stratified.
        fraction: of the records to validate on, above 0 and below 1.
        seed: another one gives another split.

    Raises:
        UserError: fraction out of range, records without labels, or none left on one side.
    """
    if not 0 < fraction < 1:
        raise UserError(f"validation_split is {fraction}; it must lie between 0 and 1")
    problems = Problems()
    strata: dict[str, dict[str, list[int]]] = {}
    for i, record in enumerate(records):
        with problems.at(record.place):
            groups = strata.setdefault(task.stratum(record), {})
            groups.setdefault(_digest(record, task, seed), []).append(i)
    problems.check()
    chosen = set()
    for stratum, wanted in _shares(strata, fraction).items():
        for _, group in sorted(strata[stratum].items()):
            if len(group) <= wanted:
                chosen.update(group)
                wanted -= len(group)
    if not chosen or len(chosen) == len(records):
        raise UserError(
            f"validation_split {fraction} of {len(records)} records leaves nothing to"
            f" {'train' if chosen else 'validate'} on; give a file of validation records"
        )
    sides = ([r for i, r in enumerate(records) if (i in chosen) == side] for side in (False, True))
    training, validation = (Records(side, records.names) for side in sides)
    return training, validation


def _shares(strata: dict[str, dict[str, list[int]]], fraction: float) -> dict[str, int]:
    """How many records of each stratum validate: whole numbers, largest remainders first."""
    sizes = {name: sum(map(len, groups.values())) for name, groups in strata.items()}
    exact = {name: fraction * size for name, size in sizes.items()}
    found = {name: math.floor(share) for name, share in exact.items()}
    left = round(fraction * sum(sizes.values())) - sum(found.values())
    by_remainder = sorted(sizes, key=lambda name: (found[name] - exact[name], name))
    for name in by_remainder[: max(left, 0)]:
        found[name] = min(found[name] + 1, sizes[name] - 1)
    return found


def _digest(record: Record, task: Task, seed: int) -> str:
    """A hash of what the model reads of a record."""
    columns = dict.fromkeys(c for source in task.inputs for c in columns_of(source))
    read = [record.get(c) for c in columns] or {
        k: v for k, v in record.values.items() if k != task.id_column
    }
    content = json.dumps([seed, read], sort_keys=True, default=str)
    return hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def balanced_weights(examples: Sequence[Example], classes: int) -> np.ndarray:
    """n / (k n_c): weights with which all classes count alike, as scikit-learn's "balanced".

    Args:
        examples: with targets that are class numbers, or tuples of arrays of them.
        classes: how many there are; k is the number of those that occur.

    Returns:
        float32 [classes]; 1 for classes that do not occur.
    """
    targets = np.concatenate([np.ravel(t) for e in examples for t in _parts(e.target)])
    counts = np.bincount(targets[targets != IGNORED].astype(np.int64), minlength=classes)
    occurs = counts > 0
    weights = np.ones(classes, np.float32)
    weights[occurs] = counts.sum() / (occurs.sum() * counts[occurs])
    return weights


def _parts(target) -> Sequence:
    return target if isinstance(target, tuple) else (target,)


def positive_weights(examples: Sequence[Example]) -> np.ndarray:
    """Negatives over positives of each label of a multi-label task: float32 [labels].

    That is `pos_weight` of PyTorch's binary cross-entropy; 1 for labels that never or always occur.
    """
    targets = np.stack([e.target for e in examples])
    positive = targets.sum(0)
    negative = len(targets) - positive
    mixed = (positive > 0) & (negative > 0)
    return np.where(mixed, negative / np.maximum(positive, 1), 1).astype(np.float32)

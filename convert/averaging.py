"""The mean of checkpoints of one architecture (Wortsman et al. 2022, "Model soups").

The released ModernBERT base is such a mean, of annealing checkpoints of one run.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError

from . import formats, locating, names
from .checkpoint import Checkpoint


def average(paths: Sequence[str | os.PathLike]) -> Checkpoint:
    """Average every parameter over checkpoints of any formats, with sums in float64.

    The dtypes of the parameters, and everything else, are those of the first checkpoint.

    Raises:
        UserError: fewer than two checkpoints, or different architectures or heads.
    """
    if len(paths) < 2:
        raise UserError("average needs two checkpoints or more")
    first = formats.load(locating.locate(paths[0]))
    sums = {path: x.astype(np.float64) for path, x in names.flatten(first.params).items()}
    for other in paths[1:]:
        checkpoint = formats.load(locating.locate(other))
        _check_same_architecture(first, checkpoint, paths[0], other)
        for path, leaf in names.flatten(checkpoint.params).items():
            sums[path] += leaf
    params: names.Params = {}
    for path, leaf in names.flatten(first.params).items():
        names.put(params, path, (sums[path] / len(paths)).astype(leaf.dtype))
    return dataclasses.replace(first, params=params)


def _check_same_architecture(a: Checkpoint, b: Checkpoint, first: object, other: object) -> None:
    values: list[tuple[str, Any, Any]] = [("head", a.head, b.head)]
    if a.head != "masked_lm":
        values.append(("labels", a.labels, b.labels))
    for field in dataclasses.fields(a.config):
        values.append((field.name, getattr(a.config, field.name), getattr(b.config, field.name)))
    different = [f"{name} {x} and {y}" for name, x, y in values if x != y]
    if different:
        details = ", ".join(different)
        raise UserError(f"{first} and {other} are not of one architecture: {details}")

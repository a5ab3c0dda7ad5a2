"""The mean of checkpoints of one architecture (Wortsman et al. 2022, "Model soups").

The released ModernBERT base is such a mean, of annealing checkpoints of one run.
"""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from modernbert_jax.errors import UserError

from . import names
from .checkpoint import Checkpoint


def average(paths: Sequence[str | os.PathLike]) -> Checkpoint:
    """The mean of every parameter over checkpoints of any formats, summed in float64.

    All else, and the dtypes of the parameters, are those of the first.

    Raises:
        UserError: fewer than two checkpoints, or two of different architectures or heads.
    """
    from . import load

    if len(paths) < 2:
        raise UserError("average needs two checkpoints or more")
    first = load(paths[0])
    totals = {path: x.astype(np.float64) for path, x in names.flatten(first.params).items()}
    for other in paths[1:]:
        checkpoint = load(other)
        _compare(first, checkpoint, paths[0], other)
        for path, leaf in names.flatten(checkpoint.params).items():
            totals[path] += leaf
    params: names.Params = {}
    for path, leaf in names.flatten(first.params).items():
        names.put(params, path, (totals[path] / len(paths)).astype(leaf.dtype))
    return dataclasses.replace(first, params=params)


def _compare(a: Checkpoint, b: Checkpoint, first: object, other: object) -> None:
    pairs = [("head", a.head, b.head)]
    if a.head != "masked_lm":
        pairs.append(("labels", a.labels, b.labels))
    for field in dataclasses.fields(a.config):
        pairs.append((field.name, getattr(a.config, field.name), getattr(b.config, field.name)))
    found = [f"{name} {x} and {y}" for name, x, y in pairs if x != y]
    if found:
        raise UserError(f"{first} and {other} are not of one architecture: {', '.join(found)}")

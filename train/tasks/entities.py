"""Precision, recall and F1 of entities: right only with the same type and the same words."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from . import schemes
from .schemes import Entity, Tag
from .scores import ClassCounts, share

PLAIN = ("f1", "precision", "recall", "f1_macro", "accuracy")
STRICT = ("strict_f1", "strict_precision", "strict_recall")


def metrics(
    actual: Sequence[Sequence[Tag]], predicted: Sequence[Sequence[Tag]], scheme: schemes.Name
) -> dict[str, float]:
    """Of all texts together, leniently and strictly read, and the F1 of every type."""
    read = [[schemes.lenient(tags) for tags in side] for side in (actual, predicted)]
    types, counts = count(*read)
    total = counts.sum()
    found = {key: float(getattr(total, key)) for key in ("f1", "precision", "recall")}
    found["f1_macro"] = float(counts.f1.mean()) if types else 0.0
    found |= {f"f1_{kind}": float(value) for kind, value in zip(types, counts.f1, strict=True)}
    _, counts = count(*([schemes.strict(t, scheme) for t in side] for side in (actual, predicted)))
    total = counts.sum()
    return found | {k: float(getattr(total, k.removeprefix("strict_"))) for k in STRICT}


def count(
    actual: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]
) -> tuple[list[str], ClassCounts]:
    """The types that occur, sorted, and their counts."""
    sums = [Counter(), Counter(), Counter()]
    for a, p in zip(actual, predicted, strict=True):
        for counter, entities in zip(sums, ({*a} & {*p}, p, a), strict=True):
            counter.update(e.type for e in entities)
    types = sorted({*sums[1], *sums[2]})
    return types, ClassCounts(*(np.array([c[t] for t in types], np.int64) for c in sums))


def accuracy(actual: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Share of words whose tag is right."""
    pairs = [
        a == p for x, y in zip(actual, predicted, strict=True) for a, p in zip(x, y, strict=True)
    ]
    return float(share(sum(pairs), len(pairs)))

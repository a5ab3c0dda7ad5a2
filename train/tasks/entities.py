"""Precision, recall and F1 of entities, which are right only with the same type and words."""

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
    """Metrics over all texts, with entities read leniently and strictly, and the F1 of each type.

    Args:
        actual: Tags of the words of each text.
        predicted: The same, predicted.
        scheme: Scheme of strict reading.
    """
    sides = (actual, predicted)
    types, lenient = count(*([schemes.lenient(tags) for tags in side] for side in sides))
    _, strict = count(*([schemes.strict(tags, scheme) for tags in side] for side in sides))
    by_type = lenient.scores()["f1"]
    return {
        **{name: float(value) for name, value in lenient.sum().scores().items()},
        "f1_macro": float(by_type.mean()) if types else 0.0,
        **{f"f1_{kind}": float(value) for kind, value in zip(types, by_type, strict=True)},
        **{f"strict_{name}": float(value) for name, value in strict.sum().scores().items()},
    }


def count(
    actual: Sequence[Sequence[Entity]], predicted: Sequence[Sequence[Entity]]
) -> tuple[list[str], ClassCounts]:
    """The types that occur, sorted, and their counts."""
    hits, guesses, truths = Counter[str](), Counter[str](), Counter[str]()
    for a, p in zip(actual, predicted, strict=True):
        hits.update(e.type for e in {*a} & {*p})
        guesses.update(e.type for e in p)
        truths.update(e.type for e in a)
    types = sorted({*guesses, *truths})
    counts = (np.array([c[t] for t in types], np.int64) for c in (hits, guesses, truths))
    return types, ClassCounts(*counts)


def accuracy(actual: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> float:
    """Share of words whose tag is right."""
    pairs = [
        a == p for x, y in zip(actual, predicted, strict=True) for a, p in zip(x, y, strict=True)
    ]
    return float(share(sum(pairs), len(pairs)))

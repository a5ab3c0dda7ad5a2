"""Examples that all sides train on: pairs, pairs with labels, and lists that a teacher scores."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io.files import write_bytes

from ...retrieval.encoding import PairScorer
from .source import Pair, Source

_TARGETS = ("label", "scores")
"""Columns of targets in a file: a number for each example, or one for each of its documents."""


class Examples(NamedTuple):
    """Examples of a training, by column."""

    columns: tuple[str, ...]
    texts: list[tuple[str, ...]]
    """A text for each column, of every example."""
    targets: list[float] | list[list[float]]
    """A label of every example, or scores of its documents; empty without either."""

    def write(self, path: Path) -> None:
        """Write them as JSON lines, which `finetune` reads."""
        rows: list[dict[str, Any]] = [dict(zip(self.columns, x, strict=True)) for x in self.texts]
        for row, target in zip(rows, self.targets, strict=False):
            row[_TARGETS[isinstance(target, list)]] = target
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        write_bytes(path, lines.encode())

    @classmethod
    def read(cls, path: Path) -> "Examples":
        """Read what `write` has written."""
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        columns = tuple(name for name in rows[0] if name not in _TARGETS)
        targets = [row[name] for row in rows for name in _TARGETS if name in row]
        return cls(columns, [tuple(row[name] for name in columns) for row in rows], targets)


def pairs(source: Source, own: Sequence[Pair]) -> Examples:
    """Pairs as they are: the documents of a batch are each other's negatives."""
    return Examples(("query", "positive"), [*own], [])


def labelled(source: Source, own: Sequence[Pair]) -> Examples:
    """Pairs with label 1, and each query with BM25's negatives with label 0."""
    rows: list[tuple[str, ...]] = []
    labels: list[float] = []
    for query, *documents in _lists(source, own):
        rows += [(query, text) for text in documents]
        labels += [1.0, *[0.0] * (len(documents) - 1)]
    return Examples(("query", "document"), rows, labels)


def scored(source: Source, own: Sequence[Pair]) -> Examples:
    """Each pair with BM25's negatives, and the teacher's score of each document.

    Lists with fewer negatives than the settings ask for, in a small corpus, are left out.

    Raises:
        UserError: no list is left, or the teacher is not a reranker.
    """
    count = source.settings.negatives
    lists = [texts for texts in _lists(source, own) if len(texts) == 2 + count]
    if not lists:
        raise UserError(f"{source.data}: no query has {count} negatives; lower --negatives")
    scorer = PairScorer.load(str(source.settings.teacher), source.settings.max_length)
    pairs_ = ((query, document) for query, *documents in lists for document in documents)
    scores = np.concatenate([*scorer.blocks(pairs_), np.zeros(0, np.float32)])
    negatives = (f"negative_{i}" for i in range(1, count + 1))
    targets = scores.reshape(len(lists), 1 + count).tolist()
    return Examples(("query", "positive", *negatives), lists, targets)


def _lists(source: Source, own: Sequence[Pair]) -> Iterator[tuple[str, ...]]:
    """Each query with its document and BM25's negatives."""
    positives: dict[str, set[str]] = {}
    for query, document in own:
        positives.setdefault(query, set()).add(document)
    for number, (query, document) in enumerate(own):
        yield query, document, *source.negatives(query, positives[query], number)

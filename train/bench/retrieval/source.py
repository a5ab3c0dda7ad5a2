"""A data set of the comparison: its pairs by split, its corpus, and what BM25 finds in it."""

import functools
from collections.abc import Set
from pathlib import Path

import numpy as np

from ...retrieval.bm25 import Bm25
from ...retrieval.data import Collection, Run, read_collection, read_examples, read_run, write_run
from .settings import Settings

DEPTH = 100
"""Documents of a query that BM25 finds: for recall, to rerank, and to draw negatives from."""

Pair = tuple[str, str]
"""Texts of a query and of a document that answers it."""


class Source:
    """A data set; what BM25 finds for the test is kept in a folder."""

    def __init__(self, settings: Settings, data: str):
        """A data set in a folder below that of the comparison."""
        self.settings, self.data = settings, data
        self.name = Path(data).resolve().name
        self.shared = Path(settings.output) / self.name

    @functools.cached_property
    def test(self) -> Collection:
        """The queries of the test with the whole corpus."""
        collection = read_collection(self.data, "test")
        chosen = [*collection.queries][: self.settings.queries or None]
        return Collection(
            collection.name,
            collection.files,
            {query: collection.queries[query] for query in chosen},
            {query: collection.qrels[query] for query in chosen},
        )

    @functools.cached_property
    def corpus(self) -> dict[str, str]:
        """Texts of all documents by id."""
        return dict(self.test.corpus())

    @functools.cached_property
    def bm25(self) -> Bm25:
        """BM25 over the corpus."""
        return Bm25([*self.corpus.values()])

    def first_stage(self) -> Run:
        """What BM25 finds for the queries of the test."""
        path = self.shared / "bm25.trec"
        if not path.exists():
            write_run(path, self._found(self.test.queries))
        return read_run(path)

    def _found(self, queries: dict[str, str]) -> Run:
        ids = [*self.corpus]
        best = self.bm25.search([*queries.values()], min(DEPTH, len(ids)))
        return {
            query: {ids[i]: float(s) for i, s in zip(numbers, scores, strict=True) if i >= 0}
            for query, numbers, scores in zip(queries, best.indices, best.scores, strict=True)
        }

    def pairs(self) -> list[Pair]:
        """The pairs of the training."""
        examples = read_examples(self.data, most=self.settings.examples).examples
        return [(query, document) for query, document, *_ in (e.texts for e in examples)]

    def negatives(self, query: str, positives: Set[str], seed: int) -> list[str]:
        """Documents drawn from those that BM25 finds for a query, without its positives."""
        texts = [*self.corpus.values()]
        numbers = self.bm25.search([query], min(DEPTH, len(texts))).indices[0]
        known = [text for i in numbers if i >= 0 and (text := texts[i]) not in positives]
        count = min(self.settings.negatives, len(known))
        chosen = np.random.default_rng(seed).choice(len(known), count, replace=False)
        return [known[i] for i in sorted(chosen)]

    def groups(self) -> list[list[Pair]]:
        """Groups of pairs of dev, in which no text repeats."""
        dev = read_collection(self.data, "dev")
        used: set[str] = set()
        pairs = []
        for query, grades in dev.qrels.items():
            pair = dev.queries[query], self.corpus[next(iter(grades))]
            if not used & {*pair}:
                used |= {*pair}
                pairs.append(pair)
        size, count = self.settings.group_size, self.settings.groups
        groups = [pairs[i * size : (i + 1) * size] for i in range(count)]
        return [group for group in groups if len(group) == size] or [pairs]

"""One data set and one kind of model: its training pairs, start, test and probe, as files."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from modernbert_jax import convert
from modernbert_jax.io.files import write_bytes

from ...retrieval.bm25 import Bm25
from ...retrieval.data import Collection, Run, read_collection, read_examples, read_run, write_run
from ...retrieval.session import TRAINEES
from .settings import Kind, Settings

DEPTH = 100
"""Documents of a query that BM25 finds: for recall, to rerank, and to draw negatives from."""


class Pairs(NamedTuple):
    """Examples of a training, by column."""

    columns: tuple[str, ...]
    texts: list[tuple[str, ...]]
    labels: list[float]
    """Empty without labels."""


class Case:
    """A data set and a kind of model; what is slow to make is kept in a folder."""

    def __init__(self, settings: Settings, data: str, kind: Kind):
        """A case in a folder below that of the comparison."""
        self.settings, self.data, self.kind = settings, data, kind
        self.name = Path(data).resolve().name
        self.shared = Path(settings.output) / self.name
        self.folder = self.shared / kind

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

    def pairs(self) -> Pairs:
        """The examples that all sides train on."""
        data = read_examples(self.data, most=self.settings.examples)
        texts: list[tuple[str, ...]] = [example.texts[:2] for example in data.examples]
        if self.kind != "reranker":
            return Pairs(("query", "positive"), texts, [])
        rows: list[tuple[str, ...]] = []
        labels: list[float] = []
        positives: dict[str, set[str]] = {}
        for query, document in texts:
            positives.setdefault(query, set()).add(document)
        for number, (query, document) in enumerate(texts):
            negatives = self._negatives(query, positives[query], number)
            rows += [(query, text) for text in (document, *negatives)]
            labels += [1.0, *[0.0] * len(negatives)]
        return Pairs(("query", "document"), rows, labels)

    def _negatives(self, query: str, positives: set[str], seed: int) -> list[str]:
        """Documents drawn from those that BM25 finds for a query, without its positives."""
        texts = [*self.corpus.values()]
        numbers = self.bm25.search([query], min(DEPTH, len(texts))).indices[0]
        known = [text for i in numbers if i >= 0 and (text := texts[i]) not in positives]
        count = min(self.settings.negatives, len(known))
        chosen = np.random.default_rng(seed).choice(len(known), count, replace=False)
        return [known[i] for i in sorted(chosen)]

    def training_file(self) -> Path:
        """The examples as JSON lines."""
        path = self.folder / "train.jsonl"
        if not path.exists():
            columns, texts, labels = self.pairs()
            rows: list[dict[str, Any]] = [dict(zip(columns, row, strict=True)) for row in texts]
            for row, label in zip(rows, labels, strict=False):
                row["label"] = label
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
            write_bytes(path, lines.encode())
        return path

    def start(self, seed: int) -> Path:
        """The checkpoint that all sides start from; the seed draws its new layers."""
        path = self.folder / f"start-{seed}"
        if not path.exists():
            config = self.settings.config(self.kind, seed, model=self.settings.model)
            trainee = TRAINEES[self.kind].open(config)
            start = trainee.begin()
            convert.save(start.exported(start.params), path, trainee.FORMAT)
        return path

    def probe(self) -> list[list[tuple[str, str]]]:
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

    def clear(self, *names_: str) -> None:
        """Remove folders of the case that are not needed any more."""
        for name in names_:
            shutil.rmtree(self.folder / name, ignore_errors=True)

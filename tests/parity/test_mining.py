"""Mined hard negatives are those of sentence-transformers' `mine_hard_negatives`."""

import collections
import json
import sys
from types import ModuleType, SimpleNamespace

import models
import numpy as np
import pytest
from sentence_transformers import CrossEncoder, SentenceTransformer, util

from modernbert_jax.train.retrieval.data import read_examples
from modernbert_jax.train.retrieval.mining.config import Mining
from modernbert_jax.train.retrieval.mining.mine import mine

WORDS = [*models.TEXTS[3].replace(",", "").replace(";", "").split(), "hello", "world", "12"]


class Table(dict):
    """The little of `datasets.Dataset` that mining needs."""

    @property
    def column_names(self):
        return list(self)

    def __len__(self):
        return len(next(iter(self.values()), ()))

    def to_pandas(self):
        """Counts of rows by query, as pandas' `groupby` gives them."""

        def groupby(column):
            counts = collections.Counter(self[column])
            return SimpleNamespace(
                count=lambda: SimpleNamespace(to_dict=lambda: dict.fromkeys(self, counts))
            )

        return SimpleNamespace(groupby=groupby)

    @classmethod
    def from_dict(cls, columns):
        return cls(columns)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Models, and queries with one or two positives and a corpus."""
    folder = tmp_path_factory.mktemp("mining")
    for name in ("mean", "reranker"):
        models.write(name, folder / name)
    rng = np.random.default_rng(0)

    def sentence(words):
        return " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), words))

    documents = list(dict.fromkeys(sentence(n) for n in rng.integers(3, 12, 60)))
    queries = [sentence(4) for _ in range(12)]
    rows = [{"query": q, "positive": documents[i]} for i, q in enumerate(queries)]
    rows += [{"query": queries[i], "positive": documents[20 + i]} for i in (2, 5)]
    corpus = [{"text": text} for text in documents[10:]]
    for name, values in (("data", rows), ("corpus", corpus)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(v) + "\n" for v in values))
    return folder


@pytest.fixture
def theirs(place, monkeypatch):
    """Their function with the data of `place`."""
    fake = ModuleType("datasets")
    fake.Dataset = Table
    monkeypatch.setitem(sys.modules, "datasets", fake)
    module = sys.modules[util.mine_hard_negatives.__module__]
    monkeypatch.setattr(module, "is_datasets_available", lambda: True, raising=False)
    data, corpus = (
        [json.loads(line) for line in (place / f"{name}.jsonl").read_text().splitlines()]
        for name in ("data", "corpus")
    )
    table = Table({name: [row[name] for row in data] for name in ("query", "positive")})
    model = SentenceTransformer(str(place / "mean"), device="cpu")

    def mined(**options):
        found = util.mine_hard_negatives(
            table, model, corpus=[row["text"] for row in corpus], verbose=False, **options
        )
        return [dict(zip(found, row, strict=True)) for row in zip(*found.values(), strict=True)]

    return mined


OPTIONS = [
    {},
    {"num_negatives": 5, "range_min": 2},
    {"relative_margin": 0.05},
    {"absolute_margin": 0.02, "max_score": 0.9, "range_max": 30},
    {"min_score": 0.2, "max_score": 0.8, "num_negatives": 4},
]


def mined(place, output, **options):
    config = Mining(
        model=str(place / "mean"),
        data=str(place / "data.jsonl"),
        corpus=str(place / "corpus.jsonl"),
        output=output,
        cache=place / "cache",
        **options,
    )
    mine(config)
    return read_examples(output)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options) or "defaults")
@pytest.mark.parametrize("format", ["triplet", "n-tuple"])
def test_negatives_and_their_scores(place, theirs, tmp_path, options, format):
    want = theirs(output_format=format, output_scores=True, **options)
    ours = mined(place, tmp_path / "out.jsonl", format=format, scores=True, **options)
    assert len(want) == len(ours)
    for example, row in zip(ours.examples, want, strict=True):
        assert [*example.texts] == [row[name] for name in row if name != "scores"]
        np.testing.assert_allclose(example.target, row["scores"], atol=1e-5)


def test_labelled_pairs(place, theirs, tmp_path):
    want = theirs(output_format="labeled-pair", relative_margin=0.05)
    ours = mined(place, tmp_path / "out.jsonl", format="labeled-pair", relative_margin=0.05)
    rows = [(*example.texts, *example.target) for example in ours.examples]
    assert rows == [tuple(row.values()) for row in want]


def test_rescoring(place, theirs, tmp_path):
    """Their scores have the sigmoid, which keeps the order of logits."""
    reranker = CrossEncoder(str(place / "reranker"), device="cpu")
    want = theirs(cross_encoder=reranker, absolute_margin=0.0, output_scores=True)
    ours = mined(
        place,
        tmp_path / "out.jsonl",
        cross_encoder=str(place / "reranker"),
        absolute_margin=0.0,
        scores=True,
    )
    for example, row in zip(ours.examples, want, strict=True):
        assert [*example.texts] == [row["query"], row["positive"], row["negative"]]
        logits = np.array(example.target)
        np.testing.assert_allclose(1 / (1 + np.exp(-logits)), row["scores"], atol=1e-5)

"""mteb runs our models on a task of its own format, without network, and agrees with `evaluate`."""

import models
import mteb
import pairs
import pytest
from datasets import Dataset
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from modernbert_jax.train.retrieval.data import read_collection
from modernbert_jax.train.retrieval.encoding import TextEncoder
from modernbert_jax.train.retrieval.evaluation import evaluate, reranking
from modernbert_jax.train.retrieval.evaluation.mteb_model import MtebEncoder, MtebReranker

WORDS = " ".join(models.TEXTS).split()
CORPUS = {f"d{i}": " ".join(WORDS[i : i + 6]) for i in range(20)}
QUERIES = {f"q{i}": text for i, text in enumerate(models.QUERIES)}
QRELS = {q: {f"d{i + k}": 1 + k % 2 for k in range(0, 12, 3)} for i, q in enumerate(QUERIES)}
TOP = {q: [f"d{i}" for i in range(12)] for q in QUERIES}

_FACTS = {
    "description": "A tiny task.",
    "reference": "https://example.org",
    "dataset": {"path": "NA", "revision": "NA"},
    "category": "t2t",
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "main_score": "ndcg_at_10",
    "date": ("2024-01-01", "2024-01-01"),
    "dialect": ["Written"],
    "domains": [],
    "task_subtypes": [],
    "license": "cc-by-4.0",
    "annotations_creators": "derived",
    "modalities": ["text"],
    "sample_creation": "found",
    "bibtex_citation": "",
}


def data(top_ranked=None) -> RetrievalSplitData:
    return RetrievalSplitData(
        queries=Dataset.from_list([{"id": q, "text": t} for q, t in QUERIES.items()]),
        corpus=Dataset.from_list([{"id": d, "text": t, "title": ""} for d, t in CORPUS.items()]),
        relevant_docs=QRELS,
        top_ranked=top_ranked,
    )


class TinyRetrieval(AbsTaskRetrieval):
    metadata = TaskMetadata(type="Retrieval", name="TinyRetrieval", **_FACTS)

    def load_data(self, num_proc=None, **_):
        self.dataset = {"default": {"test": data()}}
        self.data_loaded = True


class TinyReranking(AbsTaskRetrieval):
    metadata = TaskMetadata(type="Reranking", name="TinyReranking", **_FACTS)

    def load_data(self, num_proc=None, **_):
        self.dataset = {"default": {"test": data(TOP)}}
        self.data_loaded = True


def scores(model, task):
    result = mteb.evaluate(model, task, cache=None, show_progress_bar=False)
    return result.task_results[0].scores["test"][0]


def test_an_embedding_model(tmp_path):
    folder = models.write("mean", tmp_path / "owner" / "mean")
    pairs.write_collection(tmp_path, CORPUS, QUERIES, QRELS)
    theirs = scores(MtebEncoder(str(folder)), TinyRetrieval())
    names = ("ndcg@10", "mrr@10", "map@10", "recall@5", "precision@3")
    ours = evaluate(TextEncoder.load(str(folder)), read_collection(tmp_path), names)
    for name in names:
        assert theirs[name.replace("@", "_at_")] == pytest.approx(ours[name], abs=1e-5), name


def test_a_reranker(tmp_path):
    folder = models.write("reranker", tmp_path / "owner" / "reranker")
    model = MtebReranker(str(folder))
    theirs = scores(model, TinyReranking())
    lists = [
        reranking.RerankingList(
            text,
            tuple(CORPUS[d] for d in TOP[query]),
            tuple(QRELS[query].get(d, 0) for d in TOP[query]),
        )
        for query, text in QUERIES.items()
    ]
    ours = reranking.evaluate(model.scorer, lists, ["mrr@10"])
    assert theirs["mrr_at_10"] == pytest.approx(ours["mrr@10"], abs=1e-5)

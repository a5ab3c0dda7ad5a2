"""A collection searched by a model, against vectors compared by hand."""

import json

import models
import numpy as np
import pytest
import pytrec_eval

from modernbert_jax import ModernBert, UserError
from modernbert_jax.train.retrieval.data import read_collection
from modernbert_jax.train.retrieval.encoding import TextEncoder
from modernbert_jax.train.retrieval.evaluation.retrieval import evaluate
from modernbert_jax.train.retrieval.search.exact import search

WORDS = " ".join(models.TEXTS[2:]).split()


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """A small folder in BEIR's layout, with a query that is in the corpus."""
    folder = tmp_path_factory.mktemp("collections") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, rng.integers(6, 14))) for _ in range(70)]
    rows = [{"_id": f"d{i}", "title": "", "text": t} for i, t in enumerate(texts)]
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    queries = {"d7": texts[7], "q1": "who is there", "q2": "the lazy fox"}
    rows = [{"_id": i, "text": t} for i, t in queries.items()]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = ["query-id\tcorpus-id\tscore"]
    lines += [f"{q}\td{i}\t{1 + i % 2}" for q in queries for i in rng.choice(70, 9, replace=False)]
    (folder / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n")
    return read_collection(folder)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return TextEncoder.load(str(models.write("mean", tmp_path_factory.mktemp("models") / "mean")))


def test_search_and_metrics_equal_brute_force(collection, encoder, tmp_path):
    bert = ModernBert.from_pretrained(models.write("mean", tmp_path / "mean"))
    ids, texts = zip(*collection.corpus(), strict=True)
    names = bert.pipeline.prompts
    documents = bert.encode(texts, prompt_name="document" if "document" in names else None)
    queries = bert.encode([*collection.queries.values()], prompt_name="query")
    scores = bert.similarity(queries, documents)
    expected = {
        query: {ids[i]: float(row[i]) for i in np.argsort(-row, kind="stable")[:20]}
        for query, row in zip(collection.queries, scores, strict=True)
    }
    run = search(encoder, collection.corpus(), collection.queries, 20)
    assert {q: [*r] for q, r in run.items()} == {q: [*r] for q, r in expected.items()}
    for query, found in run.items():
        assert np.allclose([*found.values()], [*expected[query].values()], atol=1e-5)
    theirs = pytrec_eval.RelevanceEvaluator(collection.qrels, {"ndcg_cut.10", "recall.20"})
    values = theirs.evaluate(run).values()
    ours = evaluate(encoder, collection, ["ndcg@10", "recall@20"])
    assert ours["ndcg@10"] == pytest.approx(np.mean([v["ndcg_cut_10"] for v in values]), abs=1e-9)
    assert ours["recall@20"] == pytest.approx(np.mean([v["recall_20"] for v in values]), abs=1e-9)


def test_a_query_can_be_left_out_of_its_results(collection, encoder):
    plain = search(encoder, collection.corpus(), collection.queries, 6)
    assert "d7" in plain["d7"]
    others = search(encoder, collection.corpus(), collection.queries, 5, exclude_self=True)
    assert [*others["d7"]] == [d for d in plain["d7"] if d != "d7"]
    assert [*others["q1"]] == [*plain["q1"]][:5]


def test_an_empty_corpus_is_refused(encoder):
    with pytest.raises(UserError, match="no documents"):
        search(encoder, [], {"q": "hello"}, 5)

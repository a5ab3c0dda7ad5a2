"""Evaluation and mining with a sparse encoder, from the command line, against its vectors."""

import json

import models
import numpy as np
import program
import pytest
import scipy.stats
from pairs import write

from modernbert_jax import ModernBert
from modernbert_jax.train.retrieval.sparse_encoding import SparseTextEncoder

TEXTS = [*models.TEXTS, *models.QUERIES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A collection of seven documents and two queries, and a sparse encoder."""
    folder = tmp_path_factory.mktemp("sparse")
    models.write("sparse", folder / "model")
    write(folder / "beir/corpus.jsonl", [{"_id": f"d{i}", "text": t} for i, t in enumerate(TEXTS)])
    queries = [{"_id": f"q{i}", "text": t} for i, t in enumerate(models.QUERIES[:2])]
    write(folder / "beir/queries.jsonl", queries)
    (folder / "beir/qrels").mkdir()
    lines = ["query-id\tcorpus-id\tscore", "q0\td1\t1", "q1\td2\t2", "q1\td5\t1"]
    (folder / "beir/qrels/test.tsv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return ModernBert.from_pretrained(folder / "model")


@pytest.fixture
def evaluated(folder, monkeypatch, capsys):
    """Runs `evaluate`; the programs of the model are compiled once."""
    encoder = _ENCODERS.setdefault(folder, SparseTextEncoder.load(str(folder / "model")))
    monkeypatch.setattr(SparseTextEncoder, "load", lambda *_, **__: encoder)

    def run(task, data, *words):
        words = ("--task", task, "--model", folder / "model", "--data", data, *words)
        code, out, err = program.run(capsys, "evaluate", *words)
        assert code == 0, err
        return out

    return run


_ENCODERS: dict = {}


def test_retrieval_counts_weights(folder, model, evaluated):
    queries = model.sparse(models.QUERIES[:2], prompt_name="query")
    documents = model.sparse(TEXTS, prompt_name="document")
    wanted = {
        "active_query": np.mean([len(x.indices) for x in queries]),
        "active_document": np.mean([len(x.indices) for x in documents]),
    }
    result = json.loads(evaluated("retrieval", folder / "beir"))
    for name, value in wanted.items():
        assert 1 < result[name] == pytest.approx(value)
    scores = model.similarity(queries, documents)
    ranks = [1 + (row > row[i]).sum() for row, i in zip(scores, (1, 2), strict=True)]
    assert result["recall@1"] == np.mean([ranks[0] == 1, 0.5 * (scores[1].argmax() in (2, 5))])
    line = f"weights above zero: {wanted['active_query']:.1f} of a query"
    for form in ("text", "markdown"):
        out = evaluated("retrieval", folder / "beir", "--format", form)
        assert line in out and "active_query" not in out


def test_lists_pairs_and_triplets(folder, model, evaluated):
    first, second = (model.sparse(TEXTS, prompt_name=side) for side in ("query", "document"))
    scores = model.similarity(first, second)
    rows = [{"query": TEXTS[i], "positive": TEXTS[i + 1], "negative": TEXTS[i - 2]} for i in (2, 4)]
    lists = write(folder / "lists.jsonl", rows)
    right = [scores[i, i + 1] > scores[i, i - 2] for i in (2, 4)]
    result = json.loads(evaluated("reranking", lists))
    assert result["map"] == pytest.approx(np.mean([1 if best else 0.5 for best in right]))
    own = model.similarity(*(model.sparse(TEXTS) for _ in range(2)))
    right = [own[i, i + 1] > own[i, i - 2] for i in (2, 4)]
    result = json.loads(evaluated("triplets", lists))
    assert {*result} == {"task", "accuracy", "examples"}
    pairs = [(i, (i * 3 + 1) % 7) for i in range(7)]
    rows = [{"sentence1": TEXTS[i], "sentence2": TEXTS[j], "score": i * j % 5} for i, j in pairs]
    result = json.loads(evaluated("sts", write(folder / "sts.jsonl", rows)))
    values, labels = [own[i, j] for i, j in pairs], [row["score"] for row in rows]
    assert result["spearman"] == pytest.approx(scipy.stats.spearmanr(values, labels)[0], abs=1e-5)


def test_mining_takes_the_most_similar_documents(folder, model, evaluated, tmp_path, capsys):
    data = write(tmp_path / "data.jsonl", [{"query": TEXTS[5], "positive": "hello world"}])
    words = ("--data", data, "--corpus", folder / "beir/corpus.jsonl", "--num-negatives", 2)
    words = ("--model", folder / "model", *words, "--output", tmp_path / "mined.jsonl")
    assert program.run(capsys, "mine", *words)[0] == 0
    mined = [json.loads(line)["negative"] for line in (tmp_path / "mined.jsonl").open()]
    query = model.sparse([TEXTS[5]], prompt_name="query")
    scores = model.similarity(query, model.sparse(TEXTS, prompt_name="document"))[0]
    assert mined == [TEXTS[i] for i in np.argsort(-scores, kind="stable") if i != 5][:2]

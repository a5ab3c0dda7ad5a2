"""`evaluate` for retrieval, reranking, sts, triplets: numbers, tables, protocols, wrong input."""

import json
import math

import numpy as np
import program
import pytest
import pytrec_eval
import scipy.stats

from modernbert_jax import UserError
from modernbert_jax.scoring import TopK
from modernbert_jax.train.retrieval.data import read_examples, write_run
from modernbert_jax.train.retrieval.encoding import PairScorer, TextEncoder
from modernbert_jax.train.retrieval.evaluation import pairs, protocols, ranker, reranking, run
from modernbert_jax.train.retrieval.evaluation_config import Evaluating, Protocol
from modernbert_jax.train.retrieval.search.reranking import SimilarityScorer


class FakeEncoder(TextEncoder):
    """Vectors that follow from the text; the documents of a query are near it."""

    def __init__(self):
        object.__setattr__(self, "similarity", "dot")

    def symmetric(self):
        return self

    def encode(self, texts, side):
        seeds = ([*text.encode()] for text in texts)
        return np.array([np.random.default_rng(s).normal(size=5) for s in seeds], np.float32)


class FakeScorer(PairScorer):
    """The number at the end of a document."""

    def __init__(self):
        pass

    def blocks(self, pairs):
        pairs = [*pairs]
        for start in range(0, len(pairs), 3):
            yield np.array([float(d.split()[-1]) for _, d in pairs[start : start + 3]], np.float32)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def collection(folder, queries=("q1", "q2"), split="test", seed=0):
    rng = np.random.default_rng(seed)
    write(
        folder / "corpus.jsonl", [{"_id": f"d{i}", "text": f"word{i} {i % 7}"} for i in range(30)]
    )
    write(folder / "queries.jsonl", [{"_id": q, "text": f"word{i}"} for i, q in enumerate(queries)])
    lines = ["query-id\tcorpus-id\tscore"]
    lines += [f"{q}\td{i}\t{1 + i % 2}" for q in queries for i in rng.choice(30, 6, replace=False)]
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / f"qrels/{split}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def evaluated(capsys, *words):
    code, out, err = program.run(capsys, "evaluate", *words)
    assert code == 0, err
    return json.loads(out), err


def test_retrieval_by_bm25_equals_trec_eval_on_its_run(tmp_path, capsys):
    folder, output = collection(tmp_path / "set"), tmp_path / "out.run"
    words = ("--task", "retrieval", "--model", "bm25", "--data", folder)
    result, _ = evaluated(capsys, *words, "--output", output)
    assert result["task"] == "retrieval" and result["queries"] == 2 and result["documents"] == 30
    assert {"ndcg@10", "mrr@10", "map@100", "recall@100", "accuracy@1"} <= set(result)
    again, err = evaluated(capsys, "--task", "retrieval", "--run-file", output, "--data", folder)
    for name in ("ndcg@10", "map@100", "recall@100"):
        assert again[name] == result[name]
    assert not err and again["missing_queries"] == 0
    qrels = run._read_qrels(str(folder / "qrels/test.tsv"), "test")
    found = {
        q: {d: float(s)} for q, _, d, _, s, _ in map(str.split, output.read_text().splitlines())
    }
    assert set(found) == set(qrels)


def test_a_run_may_lack_queries(tmp_path, capsys):
    folder = collection(tmp_path / "set")
    first = run._read_qrels(str(folder), "test")["q1"]
    write_run(tmp_path / "a.run", {"q1": dict.fromkeys(first, 1.0)})
    words = ("--task", "retrieval", "--run-file", tmp_path / "a.run", "--data", folder)
    result, err = evaluated(capsys, *words, "--metrics", "recall@10")
    assert result["recall@10"] == 1 and result["queries"] == 1 and "1 judged" in err
    result, err = evaluated(capsys, *words, "--metrics", "recall@10", "--complete")
    assert result["recall@10"] == 0.5 and "with 0" in err
    theirs = pytrec_eval.RelevanceEvaluator({"q1": first}, {"recall.10"})
    assert theirs.evaluate({"q1": dict.fromkeys(first, 1.0)})["q1"]["recall_10"] == 1


def test_several_collections_have_their_mean_in_tables(tmp_path, capsys):
    collection(tmp_path / "all/a"), collection(tmp_path / "all/b", ("x",), seed=1)
    words = ("--task", "retrieval", "--model", "bm25", "--data", tmp_path / "all")
    words = (*words, "--metrics", "ndcg@10", "recall@5")
    result, _ = evaluated(capsys, *words)
    a, b = result["sets"]["a"], result["sets"]["b"]
    assert result["ndcg@10"] == pytest.approx((a["ndcg@10"] + b["ndcg@10"]) / 2)
    assert result["queries"] == 3
    _, out, _ = program.run(capsys, "evaluate", *words, "--format", "markdown")
    lines = out.splitlines()
    assert lines[0].split("|")[2].strip() == "ndcg@10" and set(lines[1]) <= set("|-: ")
    assert len(lines) == 5 and f"{a['ndcg@10']:.4f}" in lines[2]
    assert "fractions" in lines[0]
    _, out, _ = program.run(capsys, "evaluate", *words, "--format", "text")
    assert out.splitlines()[-1].startswith("mean")


def test_protocols_name_missing_folders_and_show_figures(tmp_path, capsys):
    for name in ("SciFact", "arguana", *(f"cqadupstack/{forum}" for forum in protocols.FORUMS)):
        collection(tmp_path / name, ("d3", "q"))
    collection(tmp_path / "msmarco", split="dev")
    words = ("--task", "retrieval", "--model", "bm25", "--protocol", "beir-dev", "--data", tmp_path)
    result, err = evaluated(capsys, *words)
    assert set(result["sets"]) == {"SciFact", "ArguAna", "MSMARCO", "CQADupStack"}
    assert "NFCorpus" in err and len(result["missing"]) == 11 and len(err.splitlines()) == 1
    assert result["sets"]["CQADupStack"]["queries"] == 24
    mean = np.mean([values["ndcg@10"] for values in result["sets"].values()])
    assert result["ndcg@10"] == pytest.approx(mean)
    (tmp_path / "msmarco/qrels/dev.tsv").rename(tmp_path / "msmarco/qrels/test.tsv")
    words = (*words[:5], "beir", "--data", tmp_path, "--format", "text", "--metrics", "ndcg@10")
    _, out, _ = program.run(capsys, "evaluate", *words)
    scifact = next(line for line in out.splitlines() if line.startswith("SciFact"))
    assert scifact.split()[2:] == ["0.570", "0.604"]
    assert out.splitlines()[-1].split()[2] == "0.416"


def test_protocols_are_those_of_the_papers():
    beir = protocols.PROTOCOLS["beir"]
    assert len(beir.sets) == 15 and len(protocols.PROTOCOLS["nanobeir"].sets) == 13
    for figures in (beir.figures["ModernBERT-base"], beir.figures["ModernBERT-large"]):
        values = [figures[one.name] for one in beir.sets]
        assert np.mean(values) == pytest.approx(figures["mean"], abs=0.06)
    excluding = {one.name for one in beir.sets if one.settings.exclude_self}
    assert excluding == {"ArguAna", "FiQA", "FEVER", "MSMARCO", "Quora"}  # as mteb 2.26
    assert all(one.settings.exclude_self for one in protocols.PROTOCOLS["beir-dev"].sets)
    assert {*Protocol.__args__} == set(protocols.PROTOCOLS)
    assert protocols.PROTOCOLS["mldr-id"].figures["ModernBERT-base"]["mean"] == 44.0


def test_protocols_of_late_interaction_have_lengths_and_figures():
    """Queries as PyLate's evaluation has them; the paper's table 8 with its mean."""
    colbert, pylate = (protocols.PROTOCOLS[f"beir-{name}"] for name in ("colbert", "pylate"))
    for figures in (colbert.figures["ModernBERT-base"], colbert.figures["ModernBERT-large"]):
        values = [figures[one.name] for one in colbert.sets]
        assert np.mean(values) == pytest.approx(figures["mean"], abs=0.06)
    lengths = {one.name: one.settings.query_length for one in colbert.sets}
    longer = {name: length for name, length in lengths.items() if length != 32}
    of_three = dict.fromkeys(("SciFact", "TREC-COVID", "SciDocs"), 48)
    assert longer == {**of_three, "Climate-FEVER": 64, "ArguAna": 64}
    assert {one.settings.document_length for one in colbert.sets} == {510}
    assert {one.settings.document_length for one in pylate.sets} == {300}
    assert all(one.settings.query_length is None for one in protocols.PROTOCOLS["beir"].sets)


def test_lengths_of_a_protocol_are_the_encoder_s_unless_the_user_names_others(
    tmp_path, capsys, monkeypatch
):
    for name in ("scifact", "nfcorpus"):
        collection(tmp_path / name)
    lengths = []

    class Cut(FakeEncoder):
        def with_lengths(self, *own):
            lengths.append(own)
            return self

        def blocks(self, texts, side):
            yield self.encode(texts, side)

        def best(self, queries, k):
            return TopK(queries, k, "dot")

    monkeypatch.setattr(ranker, "encoder_of", lambda *_: Cut())
    words = ("--task", "retrieval", "--model", "m", "--data", tmp_path)
    evaluated(capsys, *words, "--protocol", "beir-colbert")
    assert sorted(lengths) == [(32, 510), (48, 510)]
    lengths.clear()
    evaluated(capsys, *words, "--protocol", "beir-pylate", "--query-length", "40")
    assert lengths == [(None, 300)] * 2
    lengths.clear()
    evaluated(capsys, *words, "--max-length", "9")
    assert lengths == [(None, None)] * 2


def test_a_folder_without_the_protocol_is_refused(tmp_path, capsys):
    words = ("evaluate", "--task", "retrieval", "--model", "bm25", "--protocol", "mldr-ood")
    assert "none of the folders" in program.refused(capsys, *words, "--data", tmp_path)


def test_lists_are_reranked(tmp_path):
    rows = [
        {"query": "a", "positive": "x 3", "negative": "y 5"},
        {"query": "a", "positive": "z 4", "negative": "w 1"},
        {"query": "b", "positive": "x 2", "negative": "v 2"},
    ]
    lists = reranking.read_lists(write(tmp_path / "lists.jsonl", rows))
    assert lists[0].documents == ("x 3", "y 5", "z 4", "w 1") and lists[0].grades == (1, 0, 1, 0)
    values = reranking.evaluate(FakeScorer(), lists)
    # a: y, z, x, w; b: the negative first, because scores are equal.
    assert values["map"] == pytest.approx(((1 / 2 + 2 / 3) / 2 + 1 / 2) / 2)
    assert values["mrr@10"] == 0.5
    best = 1 + 1 / math.log2(3)
    ndcg = ((1 / math.log2(3) + 1 / 2) / best + 1 / math.log2(3)) / 2
    assert values["ndcg@10"] == pytest.approx(ndcg)
    labelled = [{"query": "a", "documents": ["x 1", "y 2"], "labels": [2, 0]}]
    (one,) = reranking.read_lists(write(tmp_path / "l.jsonl", labelled))
    assert one.grades == (2, 0)
    assert reranking.evaluate(SimilarityScorer(FakeEncoder()), lists)["map"] > 0


def test_wrong_lists_are_named_together(tmp_path):
    rows = [
        {"query": "a", "document": "x", "label": 0},
        {"query": "b", "document": "x", "label": 0.5},
        {"query": "c", "document": "x", "label": 1},
    ]
    with pytest.raises(UserError) as error:
        reranking.read_lists(write(tmp_path / "l.jsonl", rows))
    for part in ("l.jsonl:1: the query has no positive", "label 0.5", "l.jsonl:3", "no negative"):
        assert part in str(error.value)


def test_sts_and_triplets_by_hand(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"sentence1": f"a{i}", "sentence2": f"b{i % 9}", "score": rng.random()} for i in range(40)
    ]
    examples = read_examples(write(tmp_path / "sts.jsonl", rows))
    encoder = FakeEncoder()
    values = pairs.sts(encoder, examples)
    a = encoder.encode([row["sentence1"] for row in rows], "query").astype(np.float64)
    b = encoder.encode([row["sentence2"] for row in rows], "query").astype(np.float64)
    labels = [row["score"] for row in rows]
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    for name, scores in {
        "dot": (a * b).sum(1),
        "cosine": (a * b).sum(1) / lengths,
        "euclidean": -np.linalg.norm(a - b, axis=1),
        "manhattan": -np.abs(a - b).sum(1),
    }.items():
        assert values[f"pearson_{name}"] == pytest.approx(
            scipy.stats.pearsonr(scores, labels)[0], abs=1e-5
        )
        assert values[f"spearman_{name}"] == pytest.approx(
            scipy.stats.spearmanr(scores, labels)[0], abs=1e-5
        )
    assert values["spearman"] == values["spearman_dot"]
    rows = [{"query": f"a{i}", "positive": f"b {i}", "negative": f"c {i % 5}"} for i in range(9)]
    examples = read_examples(write(tmp_path / "t.jsonl", rows))
    values = pairs.triplets(encoder, examples)
    q, p, n = (encoder.encode([r[c] for r in rows], "query") for c in rows[0])
    assert values["accuracy_dot"] == pytest.approx(((q * p).sum(1) > (q * n).sum(1)).mean())
    assert pairs.triplets(FakeScorer(), examples) == {"accuracy": 4 / 9}
    with pytest.raises(UserError, match="two texts and a label"):
        pairs.sts(encoder, examples)
    with pytest.raises(UserError, match="a positive and a negative"):
        pairs.triplets(encoder, read_examples(tmp_path / "sts.jsonl"))


def test_wrong_options_are_one_line(tmp_path, capsys):
    folder = collection(tmp_path / "set")
    search = ("--task", "retrieval", "--data", folder)
    for words, part in (
        ((*search,), "either --model"),
        ((*search, "--model", "bm25", "--metrics", "ndgc@10"), "did you mean 'ndcg'"),
        ((*search, "--model", "bm25", "--split", "dev"), "no split 'dev'"),
        ((*search, "--model", "bm25", "--option", "a=b"), "--option"),
        (("--task", "sts", "--data", "x", "--model", "bm25"), "x"),
        (("--task", "sts", "--data", "x", "--model", "m", "--output", "o"), "--output"),
        (("--task", "reranking", "--data", folder, "--run-file", "x"), "--run-file"),
        (("--data", "x", "--model", "m", "--split", "dev"), "--split is for --task retrieval"),
        (("--data", "x"), "--model"),
        ((*search, "--run-file", "x", "--output", "o"), "--output is for the run of a --model"),
        ((*search, "--model", "bm25", "--metrics", "map@0"), "after @ must be 1"),
        (("--data", folder / "corpus.jsonl", *search[:2], "--model", "bm25"), "name its folder"),
        (("--task", "sts", "--data", "x", "--model", "m", "--rerank", "r"), "not for --task sts"),
        ((*search, "--model", "bm25", "--pooling", "cls"), "--pooling is not for bm25"),
        ((*search, "--run-file", "x", "--protocol", "beir"), "--protocol is not for --run-file"),
        ((*search, "--model", "bm25", "--rerank-top", "5"), "--rerank-top is for --rerank"),
        ((*search, "--model", "bm25", "--complete"), "--complete is for --run-file"),
    ):
        assert part in program.refused(capsys, "evaluate", *words), words


def test_the_settings_have_their_defaults():
    options = Evaluating()
    assert options.split == "test" and options.format == "json" and options.positives


def test_all_collections_are_checked_before_the_first_is_searched(tmp_path, capsys, monkeypatch):
    for name in ("a", "b", "c"):
        collection(tmp_path / f"all/{name}")
    with (tmp_path / "all/b/qrels/test.tsv").open("a") as file:
        file.write("q1\tnowhere\t1\n")
    with (tmp_path / "all/c/corpus.jsonl").open("a") as file:
        file.write('{"_id": "d0", "text": "again"}\n')
    searched = []
    monkeypatch.setattr(ranker, "search_bm25", lambda *a, **_: searched.append(a))
    words = ("--task", "retrieval", "--model", "bm25", "--data", tmp_path / "all")
    err = program.refused(capsys, "evaluate", *words)
    assert "'nowhere'" in err and "'d0' occurs before" in err and not searched
    for name in ("a", "b"):
        (tmp_path / f"all/{name}/qrels/test.tsv").write_text("q1\td1\thigh\n")
    err = program.refused(capsys, "evaluate", *words)
    assert "all/a/" in err and "all/b/" in err
    words = (*words[:-1], collection(tmp_path / "more/x").parent, "--output", tmp_path / "out.run")
    collection(tmp_path / "more/y")
    assert "2 collections" in program.refused(capsys, "evaluate", *words) and not searched
    assert not (tmp_path / "out.run").exists()

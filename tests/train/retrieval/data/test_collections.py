"""Collections in the layouts of BEIR and NanoBEIR, texts by id, runs and judgements."""

import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.retrieval.data import (
    ids,
    read_collection,
    read_collections,
    read_qrels,
    read_run,
    read_texts,
    runs,
    texts,
    write_qrels,
    write_run,
)

CORPUS = [
    {"_id": "d1", "title": "One", "text": "first"},
    {"_id": "d2", "title": "", "text": " second "},
    {"_id": "d3", "title": "Three", "text": ""},
]
QUERIES = [{"_id": "q2", "text": "b"}, {"_id": "q1", "text": "a"}, {"_id": "q3", "text": "c"}]
QRELS = "query-id\tcorpus-id\tscore\nq1\td2\t2\nq1\td1\t0\nq2\td3\t1\n"


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def beir(folder, corpus=CORPUS, qrels=QRELS):
    (folder / "qrels").mkdir(parents=True)
    jsonl(folder / "corpus.jsonl", corpus)
    jsonl(folder / "queries.jsonl", QUERIES)
    (folder / "qrels/test.tsv").write_text(qrels)
    return folder


def parquet(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def raised(function, *arguments) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_beir(tmp_path):
    read = read_collection(beir(tmp_path / "set"))
    assert read.name == "set" and list(read.queries.items()) == [("q2", "b"), ("q1", "a")]
    assert read.qrels == {"q1": {"d2": 2, "d1": 0}, "q2": {"d3": 1}}
    assert list(read.corpus()) == [("d1", "One first"), ("d2", " second "), ("d3", "Three")]
    assert read.check() == 3 and read_collections(tmp_path)["set"] == read
    documents, plain = list(read.corpus()), tmp_path / "set/corpus.jsonl"
    plain.with_suffix(".jsonl.gz").write_bytes(gzip.compress(plain.read_bytes(), mtime=0))
    assert "keep one of them" in raised(read_collection, tmp_path / "set")
    plain.unlink()
    assert list(read_collection(tmp_path / "set").corpus()) == documents
    assert "no split 'dev'; known: test" in raised(read_collection, tmp_path / "set", "dev")


def test_bad_collections(tmp_path):
    twice = [*CORPUS, {"_id": "d1", "text": "x"}, {"text": "y"}, {"_id": 5}]
    collection = read_collection(beir(tmp_path / "set", twice, QRELS + "q2\td9\t1\n"))
    message = raised(collection.check)
    assert "corpus.jsonl:4: id 'd1' occurs before" in message
    assert "corpus.jsonl:6: has no 'text'" in message
    assert "set, query q2: id 'd9' is not in " in message
    message = raised(read_collection, beir(tmp_path / "b", qrels=QRELS + "q9\td1\t1\n"))
    assert "test.tsv: query 'q9' is not among the queries" in message
    assert "no such folder" in raised(read_collection, tmp_path / "none")
    assert "has no corpus.jsonl" in raised(read_collection, tmp_path)


def test_queries_with_the_ids_of_their_positives(tmp_path):
    jsonl(tmp_path / "corpus.jsonl", CORPUS)
    rows = [{"query": "a", "positive": "d1"}, {"query": "b", "positive": ["d2", "d3"]}]
    jsonl(tmp_path / "dev.jsonl", [*rows, {"query": "a", "positive": "d3"}])
    read = read_collection(tmp_path, "dev")
    assert read.queries == {"1": "a", "2": "b"}
    assert read.qrels == {"1": {"d1": 1, "d3": 1}, "2": {"d2": 1, "d3": 1}}


def test_nano_beir(tmp_path):
    for name in ("NanoA", "NanoB"):
        end = f"{name}-00000-of-00001.parquet"
        parquet(
            tmp_path / "corpus" / end, [{"_id": "d1", "text": name}, {"_id": "d2", "text": "x"}]
        )
        parquet(tmp_path / "queries" / end, [{"_id": "q1", "text": "a"}])
        parquet(tmp_path / "qrels" / end, [{"query-id": "q1", "corpus-id": "d1"}])
        parquet(tmp_path / "bm25" / end, [{"query-id": "q1", "corpus-ids": ["d2", "d1"]}])
    sets = read_collections(tmp_path)
    assert list(sets) == ["NanoA", "NanoB"]
    assert next(sets["NanoB"].corpus()) == ("d1", "NanoB")
    assert sets["NanoA"].qrels == {"q1": {"d1": 1}} and sets["NanoA"].check() == 2
    assert sets["NanoA"].candidates == {"q1": ["d2", "d1"]}
    assert read_collection(tmp_path / "NanoB") == sets["NanoB"]
    assert "did you mean 'NanoB'" in raised(read_collection, tmp_path / "NanoC")
    assert "holds 2 collections" in raised(read_collection, tmp_path)
    rows = [{"query-id": "q1", "corpus-ids": ["d2", "d1", "d2"]}]
    rows += [{"query-id": "q2", "corpus-ids": ["d1"]}, {"query-id": "q2", "corpus-ids": ["d2"]}]
    parquet(tmp_path / "bm25" / end, rows)
    message = raised(read_collection, tmp_path / "NanoB")
    assert ":1: a list has 'd2' more than once" in message
    assert ":3: query 'q2' occurs before" in message


def test_a_single_set_in_parquet(tmp_path):
    shards = [[{"_id": "d1", "text": "x"}], [{"_id": "d2", "text": "y"}]]
    for n, rows in enumerate(shards):
        parquet(tmp_path / f"set/corpus/corpus-0000{n}-of-00002.parquet", rows)
    parquet(tmp_path / "set/queries/queries.parquet", [{"_id": "q1", "text": "a"}])
    for split, document in (("dev", "d1"), ("test", "d2")):
        rows = [{"query-id": "q1", "corpus-id": document, "score": 2}]
        parquet(tmp_path / f"set/qrels/{split}-00000-of-00001.parquet", rows)
    read = read_collection(tmp_path / "set")
    assert read.name == "set" and read.qrels == {"q1": {"d2": 2}} and read.check() == 2
    assert read_collection(tmp_path / "set", "dev").qrels == {"q1": {"d1": 2}}
    assert read_collections(tmp_path / "set") == {"set": read}


def test_texts_by_id(tmp_path):
    (tmp_path / "a.tsv").write_text('7\t"quoted\n8\teight\n')
    assert list(texts(tmp_path / "a.tsv")) == [("7", '"quoted'), ("8", "eight")]
    (tmp_path / "a2.tsv").write_text("9\tnine\n")
    assert [name for name, _ in texts(tmp_path / "a*.tsv")] == ["7", "8", "9"]
    (tmp_path / "bad.tsv").write_text("9\tnine\n\n10\n\tno id\n")
    message = raised(read_texts, tmp_path / "bad.tsv")
    assert "bad.tsv:3: has 1 fields" in message and "bad.tsv:4: id '' must be" in message
    (tmp_path / "b.tsv").write_text("id\ttext\n7\tseven\n")
    assert read_texts(tmp_path / "b.tsv") == {"7": "seven"}
    path = jsonl(tmp_path / "c.jsonl", [{"text": "no id"}, {"text": ""}])
    assert list(texts(path)) == [("1", "no id"), ("2", "")]
    path = jsonl(tmp_path / "d.jsonl", [{"id": 1, "text": "a"}, {"id": 1.5, "text": "b"}])
    assert "d.jsonl:2: id 1.5 must be text or a whole number" in raised(list, texts(path))
    path = jsonl(tmp_path / "e.jsonl", [{"id": 1, "text": "a"}, {"id": "1", "text": "b"}])
    assert "e.jsonl:2: id '1' occurs before" in raised(read_texts, path)
    assert "e.jsonl:2: id '1' occurs before" in raised(ids.survey, path)
    assert read_texts(path, ["9"]) == {}


def test_runs(tmp_path):
    run = {"q1": {"d1": 0.1, "d2": 2.0, "d3": 0.1}, "q2": {"d1": -1e-30}}
    write_run(tmp_path / "run.txt", run, "mine")
    lines = (tmp_path / "run.txt").read_text().splitlines()
    assert lines[:2] == ["q1 Q0 d2 1 2.0 mine", "q1 Q0 d1 2 0.1 mine"]
    assert read_run(tmp_path / "run.txt") == run
    compressed = tmp_path / "run.txt.gz"
    compressed.write_bytes(gzip.compress((tmp_path / "run.txt").read_bytes(), mtime=0))
    assert read_run(compressed) == run
    bad = tmp_path / "bad.txt"
    bad.write_text("q Q0 d 1 2 x\nq Q0 d 2 1 x\nq d 1\nq Q0 e 1 nan x\n\nq Q0 f 1 high x\n")
    message = raised(read_run, bad).replace(str(tmp_path) + "/", "")
    assert "bad.txt:2: document 'd' occurs before for query 'q'" in message
    assert "bad.txt:3: has 3 fields" in message and "bad.txt:4: 'nan' must be" in message
    assert "bad.txt:6: 'high' must be a number" in message
    text = "a_whole_abstract_" * 100
    bad.write_text(f"q Q0 {text} 1 2 x\n" * 2)
    assert "document 'a_whole" in raised(read_run, bad) and len(raised(read_run, bad)) < 400
    for wrong in ({"q 1": {"d": 1.0}}, {"q": {"": 1.0}}, {"q": {"d": float("nan")}}):
        raised(write_run, tmp_path / "new.txt", wrong)
    assert not (tmp_path / "new.txt").exists()
    assert "no such file" in raised(read_run, tmp_path / "none")
    odd = {"q\u00a0\u2003": {"d\u3000\x1c\u2028": 1.0, "\u202eé🙂": 0.5}}
    write_run(tmp_path / "odd.run", odd)
    assert read_run(tmp_path / "odd.run") == odd
    windows = b"\xef\xbb\xbf" + (tmp_path / "odd.run").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "odd.run").write_bytes(windows)
    assert read_run(tmp_path / "odd.run") == odd
    (tmp_path / "void.run").write_text("\n")
    assert "holds no results" in raised(read_run, tmp_path / "void.run")


def test_judgements(tmp_path):
    qrels = {"q1": {"d 1": 2, "d2": -1}, "q2\u3000": {"\u00a0d1": 0}}
    write_qrels(tmp_path / "test.tsv", qrels)
    assert read_qrels(tmp_path / "test.tsv") == qrels
    (tmp_path / "trec.txt").write_text("q1 0 d1 2\nq1 0 d2 0\n")
    assert read_qrels(tmp_path / "trec.txt") == {"q1": {"d1": 2, "d2": 0}}
    (tmp_path / "bad.tsv").write_text("q\td\t1\nq\td\t2\nq\te\t0.5\nq\te\n\tf\t1\n")
    message = raised(read_qrels, tmp_path / "bad.tsv")
    assert "bad.tsv:2: document 'd' has another grade" in message
    assert "bad.tsv:3: grade '0.5' must be a whole number" in message
    assert "bad.tsv:4: has 2 fields" in message and "bad.tsv:5: has an empty id" in message
    (tmp_path / "empty.tsv").write_text("query-id\tcorpus-id\tscore\n")
    assert "holds no judgements" in raised(read_qrels, tmp_path / "empty.tsv")
    raised(write_qrels, tmp_path / "x.tsv", {"q\t": {"d": 1}})
    assert [*runs.run_lines("q", [("a", 1), ("b", 1)])][1] == "q Q0 b 2 1.0 modernbert-jax\n"

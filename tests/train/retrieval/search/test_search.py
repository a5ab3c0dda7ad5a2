"""The search command: against brute force, interrupted, reranked, and with wrong input."""

import dataclasses
import json
import os
import sys

import killed
import models
import numpy as np
import program
import pytest

from modernbert_jax import ModernBert, UserError
from modernbert_jax.train.retrieval import on_devices
from modernbert_jax.train.retrieval.data import read_run, write_run
from modernbert_jax.train.retrieval.encoding import PairScorer, TextEncoder
from modernbert_jax.train.retrieval.search import stored
from modernbert_jax.train.retrieval.search.config import Searching
from modernbert_jax.train.retrieval.search.run import run_search

WORDS = " ".join(models.TEXTS[2:]).split()
ENDS = ("", ".json", ".npy")
"""Of the files of an index of tokens."""

QUERIES = {"d3": "again and again", "q1": "who is there", "q2": "the lazy fox"}


def texts() -> dict[str, str]:
    rng = np.random.default_rng(0)
    return {f"d{i}": " ".join(rng.choice(WORDS, rng.integers(5, 12))) for i in range(50)}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus, queries and two models."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "beir").mkdir()
    write(folder / "beir/corpus.jsonl", [{"_id": i, "text": t} for i, t in texts().items()])
    write(folder / "beir/queries.jsonl", [{"_id": i, "text": t} for i, t in QUERIES.items()])
    for name in ("mean", "reranker"):
        models.write(name, folder / name)
    return folder


@pytest.fixture(scope="module")
def loaded(folder):
    """The models, so that their programs are compiled once for all tests."""
    encoder = TextEncoder.load(str(folder / "mean"))
    scorer = PairScorer.load(str(folder / "reranker"))

    def load_encoder(path, query, document, **_):
        pipeline = encoder.model.pipeline
        sides = {"query": query, "document": document}
        own = {side: on_devices.prompted(x, pipeline, side) for side, x in sides.items()}
        return dataclasses.replace(encoder, sides=own)

    return load_encoder, lambda *_, **__: scorer


@pytest.fixture
def searching(loaded, folder, tmp_path, monkeypatch):
    """Options of a search in parts of 16 documents."""
    monkeypatch.setattr(TextEncoder, "load", loaded[0])
    monkeypatch.setattr(PairScorer, "load", loaded[1])
    monkeypatch.setattr(stored, "PART", 16)

    def make(**options):
        values = {"corpus": str(folder / "beir"), "output": tmp_path / "out.run", "top_k": 5}
        if "run_file" not in options:
            values["model"] = str(folder / "mean")
        return Searching(**values | options)

    return make


def expected(folder, **prompts) -> dict[str, list[tuple[str, float]]]:
    """The best documents of every query by a plain loop."""
    bert, documents = ModernBert.from_pretrained(folder / "mean"), texts()
    queries = bert.encode([*QUERIES.values()], prompt_name="query")
    name = next((n for n in ("document", "passage") if n in bert.pipeline.prompts), None)
    scores = bert.similarity(queries, bert.encode([*documents.values()], prompt_name=name))
    orders = np.argsort(-scores, axis=1, kind="stable")
    names = [*documents]
    return {
        query: [(names[i], float(row[i])) for i in order]
        for query, row, order in zip(QUERIES, scores, orders, strict=True)
    }


def test_a_run_equals_brute_force_and_the_cache_is_used_again(folder, searching, monkeypatch):
    config = searching()
    summary = run_search(config)
    assert summary["queries"] == 3 and summary["documents"] == 50 and summary["results"] == 15
    run, best = read_run(config.output), expected(folder)
    for query, found in run.items():
        assert [*found] == [name for name, _ in best[query][:5]]
        assert np.allclose([*found.values()], [score for _, score in best[query][:5]], atol=1e-5)
    line = config.output.read_text().splitlines()[0].split()
    assert line[1] == "Q0" and line[3] == "1" and line[5] == "modernbert-jax"

    encode = TextEncoder.encode
    sides = []
    monkeypatch.setattr(TextEncoder, "encode", lambda s, t, x: sides.append(x) or encode(s, t, x))
    again = searching(output=config.output.with_name("again.run"), cache=summary["cache"], top_k=3)
    run_search(again)
    assert sides == ["query"]
    assert {q: [*s] for q, s in read_run(again.output).items()} == {
        q: [*s][:3] for q, s in run.items()
    }


def test_an_interrupted_search_encodes_no_part_twice(searching, monkeypatch):
    encode, encoded = TextEncoder.encode, []

    def interrupted(self, texts, side):
        texts = [*texts]
        if len(encoded) == 2:
            raise KeyboardInterrupt
        encoded.append(len(texts))
        return encode(self, texts, side)

    config = searching()
    monkeypatch.setattr(TextEncoder, "encode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_search(config)
    assert not config.output.exists() and encoded == [16, 16]
    encoded.clear()

    def counted(self, texts, side):
        texts = [*texts]
        encoded.append((side, len(texts)))
        return encode(self, texts, side)

    monkeypatch.setattr(TextEncoder, "encode", counted)
    run_search(config)
    assert encoded == [("document", 16), ("document", 2), ("query", 3)]


def test_a_cache_of_other_settings_is_refused_with_the_keys(folder, searching, tmp_path):
    run_search(searching())
    cache = tmp_path / "out.run.cache"
    for options, key in (
        ({"corpus_prompt": "x "}, "prompt"),
        ({"max_length": 9}, "max_length"),
        ({"dims": 8}, "dims"),
        ({"corpus": str(write(tmp_path / "c.jsonl", [{"_id": "1", "text": "a"}]))}, "corpus"),
    ):
        queries = str(folder / "beir")
        config = searching(output=tmp_path / "b.run", cache=cache, queries=queries, **options)
        with pytest.raises(UserError, match=rf"other settings.*{key}.*--cache"):
            run_search(config)


def test_a_query_can_be_left_out_of_its_results(searching):
    config = searching(exclude_self=True, top_k=50)
    run_search(config)
    run = read_run(config.output)
    assert "d3" not in run["d3"] and len(run["d3"]) == 49 and len(run["q1"]) == 50


def test_bm25_and_reranking_of_a_run(folder, searching, tmp_path, monkeypatch):
    first = searching(model="bm25", output=tmp_path / "bm25.run", top_k=20)
    assert run_search(first)["cache"] is None
    run = read_run(first.output)
    bert, documents = ModernBert.from_pretrained(folder / "reranker"), texts()
    config = searching(
        run_file=str(first.output), rerank=str(folder / "reranker"), rerank_top=4, top_k=3
    )
    run_search(config)
    again = read_run(config.output)
    for query, scores in run.items():
        kept = [*scores][:4]
        values = bert.predict([(QUERIES[query], documents[d]) for d in kept])
        order = sorted(range(len(kept)), key=lambda i: -values[i])
        assert [*again[query]] == [kept[i] for i in order][:3]
    # In one command, with scores that are stored.
    whole = searching(
        model="bm25", rerank=config.rerank, rerank_top=4, top_k=3, output=tmp_path / "w"
    )
    run_search(whole)
    assert whole.output.read_text() == config.output.read_text()
    whole.output.unlink()
    monkeypatch.setattr(PairScorer, "load", lambda *_, **__: object())  # scores nothing
    run_search(whole)
    assert whole.output.read_text() == config.output.read_text()


def test_a_search_that_fails_leaves_nothing(searching, tmp_path, monkeypatch):
    config = searching(
        cache=tmp_path / "deep/er/cache", index=tmp_path / "i", similarity="manhattan"
    )
    with pytest.raises(UserError, match="no manhattan"):
        run_search(config)
    config = searching(cache=tmp_path / "deep/er/cache")
    monkeypatch.setattr(TextEncoder, "_vectors", lambda *_, **__: [np.full((3, 2), np.nan)])
    with pytest.raises(UserError, match="NaN"):
        run_search(config)
    assert not [*tmp_path.iterdir()]


def test_an_index_finds_the_same_and_is_used_again(searching, tmp_path, monkeypatch):
    pytest.importorskip("faiss")
    exact = searching()
    run_search(exact)
    index = tmp_path / "index.faiss"
    for name, options in (("a", {}), ("b", {}), ("c", {"similarity": "euclidean"})):
        if name == "c":
            index = tmp_path / "other.faiss"
            run_search(exact := searching(output=tmp_path / "exact2", **options))
        config = searching(output=tmp_path / name, index=index, index_type="Flat", **options)
        run_search(config)
        found, wanted = read_run(config.output), read_run(exact.output)
        assert {q: [*s] for q, s in found.items()} == {q: [*s] for q, s in wanted.items()}
        for query, scores in found.items():
            assert np.allclose([*scores.values()], [*wanted[query].values()], atol=1e-3)
    with pytest.raises(UserError, match=r"other settings.*index"):
        run_search(searching(output=tmp_path / "d", index=index, index_type="HNSW8"))
    with pytest.raises(UserError, match="--index-type 'Nothing'"):
        run_search(searching(output=tmp_path / "d", index=tmp_path / "e", index_type="Nothing"))
    assert not (tmp_path / "e").exists() and not (tmp_path / "d").exists()
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"needs the package faiss.*\[retrieval\]"):
        run_search(searching(output=tmp_path / "d", index=tmp_path / "e"))


def test_wrong_input_is_one_line(folder, tmp_path, capsys):
    beir, model = folder / "beir", folder / "mean"

    def refused(*words):
        line = program.refused(capsys, "search", *words, "--output", tmp_path / "x.run")
        assert not (tmp_path / "x.run").exists()
        return line

    def search(*words):
        return refused("--model", model, *words)

    (tmp_path / "index").write_text("something")
    empty = write(tmp_path / "empty.jsonl", [{"_id": "q", "text": " "}, {"_id": "r", "text": ""}])
    twice = write(tmp_path / "twice.jsonl", [{"_id": "d", "text": "a"}] * 2)
    line = search("--corpus", beir, "--queries", empty)
    assert "'q' is empty" in line and "'r'" in line
    assert "'d' occurs before" in search("--corpus", twice, "--queries", beir)
    assert "no such file" in search("--corpus", beir, "--queries", tmp_path / "none.jsonl")
    assert "no such" in refused("--model", tmp_path / "no", "--corpus", beir)
    assert "either --model" in refused("--corpus", beir)
    assert "--run-file needs --rerank" in refused("--run-file", "a", "--corpus", beir)
    spaced = [{"_id": "d 1", "text": "a"}, {"_id": "d2", "text": "b"}]
    blank = write(tmp_path / "blank.jsonl", spaced)
    for corpus, queries in ((blank, beir), (beir, blank)):
        assert "'d 1' is empty or has blanks" in search("--corpus", corpus, "--queries", queries)
    assert "index: has no index.json" in search("--corpus", beir, "--index", tmp_path / "index")
    line = search("--corpus", beir, "--index", beir / "corpus.jsonl")
    assert "corpus.jsonl.json" in line or "input" in line
    assert "top_k" in search("--corpus", beir, "--top-k", "0").replace("-", "_")
    for words, part in (
        (("--model", "bm25", "--index", "i"), "--index is not for bm25"),
        (("--model", "bm25", "--dims", "5"), "--dims is not for bm25"),
        (("--model", model, "--index-type", "Flat"), "--index-type is for --index"),
        (("--model", model, "--rerank-top", "5"), "--rerank-top is for --rerank"),
    ):
        assert part in refused(*words, "--corpus", beir)
    (beir / "queries.run").write_text("")  # is no file of queries
    write_run(tmp_path / "in.run", {"q1": {"nothing": 1.0}, "other": {"d1": 2.0}})
    line = refused(
        *("--run-file", tmp_path / "in.run", "--rerank", folder / "reranker", "--corpus", beir)
    )
    assert "'nothing'" in line and "'other'" in line
    assert "reranker" in refused("--model", folder / "reranker", "--corpus", beir)
    assert "no single score" in search("--corpus", beir, "--rerank", model)
    (tmp_path / "old.run").write_text("kept")
    words = ("search", "--model", "bm25", "--corpus", beir, "--output", tmp_path / "old.run")
    assert "exists" in program.refused(capsys, *words)
    assert (tmp_path / "old.run").read_text() == "kept"


def test_the_command_writes_a_run(folder, tmp_path, capsys):
    words = ("--model", "bm25", "--corpus", folder / "beir", "--top-k", "2")
    code, out, _ = program.run(capsys, "search", *words, "--output", tmp_path / "x.run")
    assert code == 0 and "3 queries" in out and [*read_run(tmp_path / "x.run")] == ["d3", "q2"]
    code, out, _ = program.run(capsys, "search", *words, "--output", tmp_path / "y.run", "--json")
    assert json.loads(out)["documents"] == 50


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mean", "sparse", "colbert", "index"])
def test_a_killed_search_is_resumed_at_every_file_that_it_writes(kind, folder, tmp_path):
    """Also one that builds an index of tokens, which is saved again and again."""
    constants = {"search.stored.PART": 16, "search.reranking.QUERIES": 1}
    constants |= {"search.token_index.SAVED": 0.0}
    model = models.write("colbert" if kind == "index" else kind, tmp_path / "model")

    def words(output):
        command = ["search", "--model", model, "--corpus", folder / "beir", "--rerank-top", 9]
        command += ["--rerank", folder / "reranker", "--output", tmp_path / output]
        if kind == "index":
            command += ["--index", tmp_path / f"{output}.voyager", "--index-neighbours", 9999]
        return command

    whole = killed.run(words("whole.run"), constants)
    assert whole.returncode == 0, whole.stderr
    assert killed.until_done(words("again.run"), constants, steps=(4, 5, 6)) > 2
    assert (tmp_path / "again.run").read_bytes() == (tmp_path / "whole.run").read_bytes()
    names = {"model", "again.run", "whole.run", "again.run.cache", "whole.run.cache"}
    if kind == "index":
        files = (f"{run}.voyager{end}" for run in ("again.run", "whole.run") for end in ENDS)
        names |= {*files}
    assert {*os.listdir(tmp_path)} == names


def test_a_corpus_is_not_searched_for_its_own_documents(searching, folder):
    with pytest.raises(UserError, match="name --queries"):
        run_search(searching(corpus=str(folder / "beir/corpus.jsonl")))

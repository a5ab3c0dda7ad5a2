"""Mining from files to a data set: against brute force, interrupted, and with wrong input."""

import dataclasses
import gzip
import json
from types import SimpleNamespace

import models
import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.cli import main
from modernbert_jax.scoring import SIMILARITIES, TopK
from modernbert_jax.scoring.similarity import cosine as cosine_similarity
from modernbert_jax.train.retrieval.data import read_examples
from modernbert_jax.train.retrieval.encoding import PairScorer, TextEncoder
from modernbert_jax.train.retrieval.mining import encoded, stages
from modernbert_jax.train.retrieval.mining.config import Mining
from modernbert_jax.train.retrieval.mining.mine import mine
from modernbert_jax.train.retrieval.search import models as search_models

CORPUS = [f"document {i} of {i * 7 % 11} and {i * 5 % 13}" for i in range(40)]
QUERIES = [f"query {i}" for i in range(12)]


def vector(text: str) -> np.ndarray:
    """A direction that depends on the text alone."""
    return np.random.default_rng([*text.encode()]).normal(size=6).astype(np.float32)


def cosine(a: str, b: str) -> float:
    x, y = vector(a), vector(b)
    return float(x @ y / np.linalg.norm(x) / np.linalg.norm(y))


class FakeEncoder:
    """Vectors without a model; counts the texts that it encodes."""

    similarity = "cosine"

    def __init__(self, prompts=("", ""), stop_after=None):
        self._prompts = dict(zip(("query", "document"), prompts, strict=True))
        self.encoded, self._stop_after = 0, stop_after

    def facts(self, side):
        return {"prompt": self._prompts[side]}

    def best(self, queries, k):
        return TopK(queries, k)

    def pairs(self, queries, documents):
        return np.array(
            [
                SIMILARITIES["cosine"](q[None], d[None])[0, 0]
                for q, d in zip(queries, documents, strict=True)
            ]
        )

    def encode(self, texts, side):
        if self._stop_after is not None and self.encoded >= self._stop_after:
            raise KeyboardInterrupt
        self.encoded += len(texts)
        return np.stack([vector(self._prompts[side] + text) for text in texts])


@pytest.fixture
def encoder(monkeypatch):
    """Replaces the model of `mine`; parts are small, so that there are several."""
    monkeypatch.setattr(encoded, "TEXTS", 16)
    monkeypatch.setattr(stages, "SEARCHED", 8)
    monkeypatch.setattr(stages, "RANKED", 4)
    loaded = []

    def use(**options):
        loaded.append(FakeEncoder(**options))
        monkeypatch.setattr(search_models, "kind_of", lambda model: "embedding")
        monkeypatch.setattr(TextEncoder, "load", lambda *_, **__: loaded[-1])
        return loaded[-1]

    use()
    return use


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(tmp_path):
    """Twelve queries, one of them twice with another positive, and a corpus with equal texts."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/weights").write_text("x")
    rows = [{"query": q, "positive": CORPUS[3 * i]} for i, q in enumerate(QUERIES)]
    rows += [{"query": QUERIES[2], "positive": "a positive of its own"}]
    corpus = [{"_id": f"d{i}", "text": text} for i, text in enumerate(CORPUS)]
    corpus += [{"_id": "again", "text": f" {CORPUS[1]} "}, {"_id": "void", "text": " "}]
    corpus += [{"_id": "same", "text": QUERIES[5]}]
    return Mining(
        model=str(tmp_path / "model"),
        data=str(jsonl(tmp_path / "data.jsonl", rows)),
        corpus=str(jsonl(tmp_path / "corpus.jsonl", corpus)),
        output=tmp_path / "mined.jsonl",
    )


def changed(config, name, **changes):
    return dataclasses.replace(config, output=config.output.with_name(name), **changes)


def rows_of(config):
    return [json.loads(line) for line in config.output.read_text().splitlines()]


POSITIVES = {q: [CORPUS[3 * i]] for i, q in enumerate(QUERIES)}
POSITIVES[QUERIES[2]].append("a positive of its own")
DOCUMENTS = [*CORPUS, QUERIES[5], "a positive of its own"]


def nearest(query, score=cosine, allowed=lambda score, worst: True, found=None):
    """All documents that may be negatives of a query, best first."""
    worst = min(score(query, positive) for positive in POSITIVES[query])
    others = [d for d in found or DOCUMENTS if d not in POSITIVES[query] and d != query]
    others = [d for d in others if allowed(score(query, d), worst)]
    return sorted(others, key=lambda d: -score(query, d))


def first_stage(query, depth):
    """The documents that are most similar to a query."""
    return sorted(DOCUMENTS, key=lambda d: -cosine(query, d))[:depth]


def test_triplets_against_brute_force(config, encoder):
    summary = mine(config)
    want = [
        {"query": q, "positive": positive, "negative": negative}
        for q in QUERIES
        for positive in POSITIVES[q]
        for negative in nearest(q)[:3]
    ]
    assert rows_of(config) == want and summary["rows"] == len(want) == 39
    examples = read_examples(config.output)
    assert examples.columns == ("query", "positive", "negative") and len(examples) == 39


def test_margins_and_tuples_with_scores(config, encoder):
    config = changed(
        config, "m.jsonl", relative_margin=0.05, max_score=0.6, range_min=1, format="n-tuple",
        scores=True, num_negatives=2,
    )  # fmt: skip
    summary = mine(config)
    windows, want = {}, []
    for query in QUERIES:
        found = first_stage(query, 1 + 20 + 2 + 2 + 1)
        windows[query] = nearest(
            query, allowed=lambda s, worst: s <= min(worst - abs(worst) * 0.05, 0.6), found=found
        )[1:3]
        if len(windows[query]) == 2:
            want += [(query, positive, *windows[query]) for positive in POSITIVES[query]]
    examples = read_examples(config.output)
    assert [e.texts for e in examples.examples] == want and examples.targets == "scores"
    for texts, scores, _ in examples.examples:
        assert np.allclose(scores, [cosine(texts[0], t) for t in texts[1:]], atol=1e-6)
    assert summary["queries_with_too_few"] == sum(len(w) < 2 for w in windows.values()) > 0
    assert summary["dropped"]["relative_margin"] > 0 and summary["queries"] == 12


@pytest.mark.parametrize("scores", [False, True])
def test_labelled_pairs_and_lists(config, encoder, scores):
    pairs = changed(config, "pairs.jsonl.gz", format="labeled-pair", scores=scores)
    lists = changed(config, "lists.parquet", format="labeled-list", scores=scores)
    for each in (pairs, lists):
        mine(dataclasses.replace(each, cache=config.output.with_name("cache")))
    want = [(q, [*POSITIVES[q], *nearest(q)[:3]]) for q in QUERIES]
    examples = read_examples(lists.output)
    assert [(e.texts[0], [*e.texts[1:]]) for e in examples.examples] == want
    flat = [(q, d, t) for (q, *ds), ts, _ in examples.examples for d, t in zip(ds, ts, strict=True)]
    assert [(*e.texts, *e.target) for e in read_examples(pairs.output).examples] == flat
    if scores:
        assert np.allclose([t for *_, t in flat], [cosine(q, d) for q, d, _ in flat], atol=1e-6)
    else:
        assert [t for *_, t in flat] == [d in POSITIVES[q] for q, d, _ in flat]
    assert gzip.decompress(pairs.output.read_bytes()).count(b"\n") == len(flat)


def test_positives_among_the_candidates(config, encoder):
    config = changed(config, "r.jsonl", format="labeled-list", include_positives=True)
    mine(config)
    for row, query in zip(rows_of(config), QUERIES, strict=True):
        others = sorted((d for d in DOCUMENTS if d != query), key=lambda d: -cosine(query, d))
        rest = [d for d in POSITIVES[query] if d not in others[:3]]
        assert row["documents"] == others[:3] + rest
        assert row["labels"] == [int(d in POSITIVES[query]) for d in row["documents"]]


def test_positives_by_their_ids(config, encoder, tmp_path):
    rows = [{"query": q, "positive": f"d{3 * i}"} for i, q in enumerate(QUERIES)]
    rows += [{"query": QUERIES[2], "positive": "again"}]
    config = dataclasses.replace(config, data=str(jsonl(tmp_path / "ids.jsonl", rows)))
    mine(config)
    for query in QUERIES:
        own = [CORPUS[3 * QUERIES.index(query)], *[CORPUS[1]] * (query == QUERIES[2])]
        others = [d for d in DOCUMENTS[:-1] if d not in own and d != query]
        best = sorted(others, key=lambda d: -cosine(query, d))[:3]
        found = [(r["positive"], r["negative"]) for r in rows_of(config) if r["query"] == query]
        assert found == [(positive, negative) for positive in own for negative in best]


def test_prompts_of_both_sides(config, encoder):
    encoder(prompts=("ask: ", "text: "))
    mine(config)

    def score(query, document):
        return cosine(f"ask: {query}", f"text: {document}")

    want = [d for q in QUERIES for _ in POSITIVES[q] for d in nearest(q, score)[:3]]
    assert [row["negative"] for row in rows_of(config)] == want


def test_a_reranker_scores_candidates_and_positives(config, encoder, monkeypatch):
    def score(query, document):
        return -cosine(query, document) * 5

    def blocks(pairs):
        yield np.array([score(*pair) for pair in pairs], np.float32)

    monkeypatch.setattr(PairScorer, "load", lambda *_, **__: SimpleNamespace(blocks=blocks))
    config = changed(
        config, "r.jsonl", cross_encoder=config.model, range_max=5, absolute_margin=0.0, scores=True
    )
    mine(config)
    rows = rows_of(config)
    assert rows
    for query in QUERIES:
        found = first_stage(query, 5 + 2 + 1)
        left = nearest(query, score, lambda s, worst: s <= worst, found)
        own = [row for row in rows if row["query"] == query]
        assert [row["negative"] for row in own] == left[:3] * len(POSITIVES[query])
        for row in own:
            want = [score(query, row["positive"]), score(query, row["negative"])]
            assert np.allclose(row["scores"], want, atol=1e-5)


def test_bm25(config, tmp_path):
    data = jsonl(tmp_path / "d.jsonl", [{"query": "zebra", "positive": "a positive"}])
    config = changed(config, "b.jsonl", model="bm25", data=str(data))
    with pytest.raises(UserError, match="no query has enough negatives"):
        mine(config)
    assert not config.output.exists()
    jsonl(data, [{"query": "document 12 or 10", "positive": CORPUS[12]}])
    mine(config)
    assert all({"10", "12"} & {*row["negative"].split()} for row in rows_of(config))
    assert [row["positive"] for row in rows_of(config)] == [CORPUS[12]] * 3


def test_an_interrupted_run_repeats_no_part(config, encoder):
    undisturbed = changed(config, "whole.jsonl", sampling="random", range_max=9)
    total = encoder()
    mine(undisturbed)
    assert total.encoded == len(DOCUMENTS) + len(QUERIES)
    config = changed(undisturbed, "again.jsonl")
    first, runs = 0, 0
    while not config.output.exists():
        part = encoder(stop_after=16)
        try:
            mine(config)
        except KeyboardInterrupt:
            assert not config.output.exists()
        first, runs = first + part.encoded, runs + 1
    assert first == total.encoded and runs > 2
    assert config.output.read_bytes() == undisturbed.output.read_bytes()
    again = changed(config, "other-rules.jsonl", cache=config.output.with_name("again.jsonl.cache"))
    part = encoder()
    mine(dataclasses.replace(again, max_score=0.5, sampling="top", num_negatives=1))
    assert part.encoded == 0


def test_other_texts_models_and_prompts_are_encoded_anew(config, encoder):
    cache = config.output.with_name("cache")
    counts = []
    weights = config.output.with_name("model") / "weights"
    for n, change in enumerate(("none", "prompt", "model", "text")):
        part = encoder(prompts=("ask: " if n else "", ""))
        if change == "model":
            weights.write_text("y")
        if change == "text":
            jsonl(config.output.with_name("corpus.jsonl"), [{"text": "another"}])
        mine(changed(config, f"{n}.jsonl", cache=cache))
        counts.append(part.encoded)
    assert counts == [54, 12, 54, 12 + 14]


def test_a_folder_whose_output_is_in_it(config, encoder, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    (tmp_path / "corpus.jsonl").rename(folder / "corpus.jsonl")
    jsonl(folder / "train.jsonl", [{"query": "q", "positive": "d1"}])
    config = dataclasses.replace(
        config, data=str(folder), corpus="", output=folder / "mined.jsonl", num_negatives=1
    )
    mine(config)
    (row,) = rows_of(config)
    assert row["positive"] == CORPUS[1]
    config.output.unlink()
    again = encoder()
    mine(config)
    assert again.encoded == 0 and rows_of(config) == [row]


def test_damaged_parts_are_named(config, encoder):
    mine(config)
    cache = config.output.with_name("mined.jsonl.cache")
    part = next(cache.glob("vectors-document-*/000001.npz"))
    part.write_bytes(part.read_bytes()[:100])
    for path in cache.glob("candidates-*/*.npz"):
        path.unlink()
    with pytest.raises(UserError, match=r"000001.npz: is damaged .*remove it"):
        mine(changed(config, "x.jsonl", cache=cache))


def test_wrong_input_is_named_before_the_work(config, encoder, tmp_path):
    def message(**changes):
        with pytest.raises(UserError) as error:
            mine(dataclasses.replace(config, **changes))
        assert not config.output.exists()
        return str(error.value)

    assert "ending must be one of .jsonl" in message(output=tmp_path / "x.csv")
    assert "labeled-pair or labeled-list" in message(include_positives=True)
    assert "data is '-'" in message(data="-")
    assert "--query-prompt is not for bm25" in message(model="bm25", query_prompt="q")
    assert "no such file" in message(data=str(tmp_path / "none"))
    assert not (tmp_path / "mined.jsonl.cache").exists()
    rows = [{"query": "q", "positive": "d1"}, {"query": "q", "positive": "d77"}]
    data = str(jsonl(tmp_path / "missing.jsonl", rows))
    assert "missing.jsonl:2: id 'd77' is not in" in message(data=data)
    rows = [{"query": "q", "positive": "d1"}, {"query": "q", "positive": "void"}]
    data = str(jsonl(tmp_path / "empty.jsonl", rows))
    assert "empty.jsonl:2: the text of id 'void' is empty" in message(data=data)
    rows = [{"query": CORPUS[1], "positive": "d1"}]
    data = str(jsonl(tmp_path / "equal.jsonl", rows))
    assert "equal.jsonl:1: 'positive' is equal to its query" in message(data=data)
    twice = [{"_id": "a", "text": "x"}, {"_id": "a", "text": "y"}, {"_id": "b"}]
    text = message(corpus=str(jsonl(tmp_path / "twice.jsonl", twice)))
    assert "twice.jsonl:2: id 'a' occurs before" in text and "twice.jsonl:3: has no 'text'" in text
    config.output.write_text("mine")
    with pytest.raises(UserError, match="exists"):
        mine(config)
    assert config.output.read_text() == "mine"


def test_the_command_with_a_model(tmp_path, capsys):
    model = models.write("mean", tmp_path / "model")
    rows = [{"query": q, "positive": t} for q, t in zip(models.QUERIES, models.TEXTS, strict=False)]
    data = jsonl(tmp_path / "data.jsonl", rows)
    output = tmp_path / "out.jsonl"
    words = ["mine", "--model", str(model), "--data", str(data), "--output", str(output)]
    assert main([*words, "--num-negatives", "1"]) == 0
    printed = capsys.readouterr().out
    assert "median" in printed and f"{output}: {len(rows)} rows" in printed
    folder = tmp_path / "out.jsonl.cache"
    vectors = {
        side: np.load(next(folder.glob(f"vectors-{side}-*/000000.npz")))["vectors"]
        for side in ("query", "document")
    }
    texts = list(dict.fromkeys(row["positive"] for row in rows))
    similarity = cosine_similarity(vectors["query"], vectors["document"])
    for i, row in enumerate(map(json.loads, output.read_text().splitlines())):
        own = texts.index(rows[i]["positive"])
        best = max(s for d, s in enumerate(similarity[i]) if d != own)
        assert np.isclose(similarity[i][texts.index(row["negative"])], best, atol=1e-5)
    assert main(words) == 2 and "exists" in capsys.readouterr().err
    output.unlink()
    assert main([*words, "--num-negatives", "1", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["rows"] == len(rows) and summary["scores"]["negative"]["count"] == len(rows)

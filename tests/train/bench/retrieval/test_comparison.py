"""The comparison with sentence-transformers, without it; its own side is tested among parity's."""

import dataclasses
import itertools
import json
import sys

import corpus
import labelled
import numpy as np
import pytest

from modernbert_jax import UserError, cli, convert
from modernbert_jax.convert import names
from modernbert_jax.splade import SparseVector
from modernbert_jax.train.bench.retrieval import (
    comparison,
    examples,
    measuring,
    process,
    products,
    sides,
    tables,
)
from modernbert_jax.train.bench.retrieval.case import Case
from modernbert_jax.train.bench.retrieval.comparison import Result
from modernbert_jax.train.bench.retrieval.settings import Settings, SparseTraining, Training
from modernbert_jax.train.retrieval.data import read_examples


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and a data set whose documents hold the words of their queries."""
    folder = tmp_path_factory.mktemp("bench")
    labelled.checkpoint(folder / "model", corpus.make_tokenizer(), num_hidden_layers=1)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(40):
        words = [corpus.WORDS[j] for j in rng.integers(0, len(corpus.WORDS), 12)]
        rows.append({"id": f"d{i}", "text": " ".join(words[:6]) + f"\n\n{' '.join(words)}"})
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["bench", "retrieval-data", "titles", "--input", str(folder / "text.jsonl")]
    command += ["--dev", "8", "--test", "8", "--output", str(folder / "words")]
    assert cli.main(command) == 0
    return folder


def settings(place, output, **changes):
    return Settings(
        data=(str(place / "words"),),
        model=str(place / "model"),
        output=str(output),
        **{"max_length": 32, "groups": 2, "group_size": 3, "negatives": 2} | changes,
    )


def test_what_does_not_train_is_measured_once_and_kept(place, tmp_path, monkeypatch):
    pytest.importorskip("bm25s")
    config = settings(
        place, tmp_path / "out", sides=("bm25", "untuned"), kinds=("embedding",), seeds=(0, 1)
    )
    measured = []
    monkeypatch.setattr(measuring, "quality", lambda case, model: measured.append(model) or {})
    bm25, untuned = comparison.compare(config)
    assert (bm25.side, untuned.side) == ("bm25", "untuned")
    assert bm25.metrics["ndcg@10"] > 0.9 and [path.name for path in measured] == ["start-0"]
    assert {*bm25.metrics} == {"ndcg@10", "mrr@10", "recall@100"}
    monkeypatch.setattr(comparison, "_untrained", None)  # nothing is measured again
    assert [*comparison.compare(config)] == [bm25, untuned]
    with pytest.raises(UserError, match="max_length"):
        next(comparison.compare(dataclasses.replace(config, max_length=16)))


def test_rerankers_learn_from_negatives_of_bm25(place, tmp_path):
    pytest.importorskip("bm25s")
    case = Case(settings(place, tmp_path, examples=5), str(place / "words"), "reranker")
    columns, texts, labels = case.examples
    assert columns == ("query", "document") and len(texts) == 5 * 3
    assert labels == [1.0, 0.0, 0.0] * 5
    documents = {*case.corpus.values()}
    for i in range(0, 15, 3):
        (query, positive), *negatives = texts[i : i + 3]
        assert positive.startswith(query) and {text for _, text in negatives} <= documents
        assert positive not in {text for _, text in negatives}
    again = Case(case.settings, case.data, "reranker")
    assert again.facts.examples(again, again.pairs()) == (columns, texts, labels)
    rows = [json.loads(line) for line in case.training_file().read_text().splitlines()]
    assert rows[1] == {"query": texts[1][0], "document": texts[1][1], "label": 0.0}


class LengthScorer:
    """A teacher whose scores are the differences in length, a list of them at a time."""

    def blocks(self, pairs):
        for query, document in pairs:
            yield np.array([len(document) - len(query)], np.float32) / 7


def test_lists_are_scored_by_the_teacher_once(place, tmp_path, monkeypatch):
    pytest.importorskip("bm25s")
    asked = []
    scorer = lambda *model: asked.append(model) or LengthScorer()  # noqa: E731
    monkeypatch.setattr(examples.PairScorer, "load", scorer)
    config = settings(place, tmp_path, examples=5, teacher="a-reranker")
    case = Case(config, str(place / "words"), "late-interaction-distilled")
    columns, texts, targets = case.examples
    assert columns == ("query", "positive", "negative_1", "negative_2")
    documents = {*case.corpus.values()}
    for (query, positive, *negatives), scores in zip(texts, targets, strict=True):
        assert positive.startswith(query) and {*negatives} <= documents - {positive}
        lengths = [len(text) - len(query) for text in (positive, *negatives)]
        assert scores == (np.array(lengths, np.float32) / 7).tolist()
    assert Case(config, case.data, case.kind).examples == (columns, texts, targets)
    assert len(texts) == 5 and asked == [("a-reranker", 32)]
    (first, *_) = read_examples(case.training_file()).examples
    assert (first.texts, [*first.target]) == (texts[0], targets[0])


def test_a_list_with_too_few_negatives_is_left_out(place, tmp_path, monkeypatch):
    pytest.importorskip("bm25s")
    monkeypatch.setattr(examples.PairScorer, "load", lambda *_: LengthScorer())

    def case(negatives):
        own = settings(place, tmp_path, teacher="a-reranker", negatives=negatives)
        return Case(own, str(place / "words"), "late-interaction-distilled")

    pairs = case(1).pairs()
    counts = [len(case(100).negatives(query, {document}, 0)) for query, document in pairs]
    most = max(counts)
    assert min(counts) < most
    wanted = [pair for pair, count in zip(pairs, counts, strict=True) if count == most]
    assert [x[:2] for x in case(most).examples.texts] == wanted
    (tmp_path / "words" / "late-interaction-distilled" / "train.jsonl").unlink()
    with pytest.raises(UserError, match=f"no query has {most + 1} negatives; lower --negatives"):
        case(most + 1).training_file()
    assert not (case(1).folder / "train.jsonl").exists()


def test_distillation_needs_a_teacher(place, tmp_path):
    with pytest.raises(UserError, match="--teacher"):
        settings(place, tmp_path, kinds=("late-interaction-distilled",))
    config = settings(
        place, tmp_path / "out", kinds=("late-interaction-distilled",), teacher=str(place / "model")
    )
    with pytest.raises(UserError, match="no single score"):
        next(comparison.compare(dataclasses.replace(config, sides=("ours",))))
    assert not (tmp_path / "out").exists()


def test_batches_hold_every_pair_and_no_text_twice(place, tmp_path):
    training = Training(batch_examples=4, epochs=2)
    case = Case(settings(place, tmp_path, embedding=training), str(place / "words"), "embedding")
    plan = sides.batches(case, 0)
    assert len(plan) == 12 and sorted(itertools.chain(*plan)) == sorted([*range(24)] * 2)
    assert plan != sides.batches(case, 1)


def test_both_sides_raise_the_regularization_over_the_same_steps(place, tmp_path):
    training = SparseTraining(batch_examples=4, epochs=3, query_flops=0.1)
    case = Case(settings(place, tmp_path, sparse=training), str(place / "words"), "sparse")
    plan = sides.Plan.of(case, 0)
    sides.ours(case, tmp_path, plan)
    sides.peer(case, tmp_path, plan, cached=False)
    config = json.loads((tmp_path / "config.json").read_text())
    job = json.loads((tmp_path / "job.json").read_text())
    assert plan.steps == 18 and config["flops_ramp"] == 6 / 18
    assert (config["query_flops"], config["document_flops"]) == (0.1, 3e-5)
    assert (job["kind"], job["query_flops"], job["document_flops"]) == ("sparse", 0.1, 3e-5)


def test_a_reranker_starts_from_the_encoder_with_a_drawn_classifier(place, tmp_path):
    data, config = str(place / "words"), settings(place, tmp_path)
    first, second = (convert.load(Case(config, data, "reranker").start(i)) for i in (0, 1))
    assert first.labels == second.labels == 1 and first.pipeline.kind == "reranker"
    own = convert.load(config.model).params["encoder"]
    for path, leaf in names.flatten(own).items():
        np.testing.assert_array_equal(names.flatten(first.params)[("encoder", *path)], leaf)
    kernels = [x.params["classifier"]["kernel"] for x in (first, second)]
    assert kernels[0].shape == (32, 1) and (kernels[0] != kernels[1]).any()
    bare = convert.load(Case(config, data, "embedding").start(0))
    assert bare.head == "none" and bare.pipeline.pooling.modes == ("mean",)
    late = convert.load(Case(config, data, "late-interaction").start(0))
    assert late.pipeline.late.query_length == 32 and late.params["dense_0"]
    sparse = convert.load(Case(config, data, "sparse").start(0))
    assert sparse.pipeline.kind == "sparse" and sparse.head == "masked_lm"


class FakeEncoder:
    """Vectors that are the counts of letters."""

    def encode(self, texts, side):
        letters = "aeinorst"
        return np.array([[text.count(x) + (side == "query") for x in letters] for text in texts])


def test_the_probe_is_the_loss_of_whole_groups(place, tmp_path, monkeypatch):
    case = Case(settings(place, tmp_path), str(place / "words"), "embedding")
    groups = case.groups()
    assert [len(group) for group in groups] == [3, 3]
    monkeypatch.setattr(measuring, "load", lambda case, path: FakeEncoder())
    losses = []
    for group in groups:
        queries, documents = (
            FakeEncoder().encode(texts, side)
            for texts, side in zip(zip(*group, strict=True), ("query", "document"), strict=True)
        )
        for i in range(3):
            norms = np.linalg.norm(queries[i]) * np.linalg.norm(documents, axis=1)
            logits = 20 * (documents @ queries[i]) / norms
            losses.append(np.log(np.exp(logits).sum()) - logits[i])
    assert measuring.probe_loss(case, {7: place}) == {7: pytest.approx(np.mean(losses))}


def test_the_probe_of_sparse_vectors_takes_their_products():
    queries = [SparseVector(np.array([1, 5]), np.array([2.0, 3.0], np.float32))]
    documents = [
        SparseVector(np.array([5, 7]), np.array([0.5, 4.0], np.float32)),
        SparseVector(np.array([], np.int64), np.array([], np.float32)),
    ]
    assert products.sparse_products(queries, documents).tolist() == [[1.5, 0.0]]


def test_the_probe_of_distillation_is_the_divergence_of_kept_lists(place, tmp_path, monkeypatch):
    class Student(FakeEncoder):
        def pairs(self, queries, documents):
            return (queries * documents).sum(1)

    pytest.importorskip("bm25s")
    monkeypatch.setattr(examples.PairScorer, "load", lambda *_: LengthScorer())
    monkeypatch.setattr(measuring, "load", lambda case, path: Student())
    config = settings(place, tmp_path, teacher="a-reranker")
    case = Case(config, str(place / "words"), "late-interaction-distilled")
    held_out = case.held_out()
    assert [x[:2] for x in held_out.texts] == [pair for group in case.groups() for pair in group]
    losses = []
    for (query, *documents), scores in zip(held_out.texts, held_out.targets, strict=True):
        own = Student().encode(documents, "document") @ Student().encode([query], "query")[0]
        teacher, student = (np.exp(x - np.max(x)) for x in (np.array(scores), own))
        teacher, student = teacher / teacher.sum(), student / student.sum()
        losses.append((teacher * np.log(teacher / student)).sum())
    assert measuring.probe_loss(case, {0: place}) == {0: pytest.approx(np.mean(losses))}


def test_weights_of_sparse_vectors_are_counted(place, tmp_path, monkeypatch):
    case = Case(settings(place, tmp_path), str(place / "words"), "sparse")
    model = measuring.load(case, case.start(0))
    monkeypatch.setattr(measuring, "load", lambda *_: model)  # its programs are compiled once
    metrics = measuring.quality(case, "a model")
    for side, texts in (("query", case.test.queries), ("document", case.corpus)):
        vectors = model.encode(texts.values(), side)
        assert metrics[f"active_{side}"] == np.mean([len(x.indices) for x in vectors])
    assert 0 < metrics["ndcg@10"] <= 1 < metrics["active_document"]


def test_the_probe_of_a_reranker_is_a_loss_of_labels(place, tmp_path, monkeypatch):
    class Scorer:
        def blocks(self, pairs):
            yield np.array(
                [3.0 if document.startswith(query) else -1.0 for query, document in pairs]
            )

    monkeypatch.setattr(measuring.PairScorer, "load", lambda *_: Scorer())
    case = Case(settings(place, tmp_path), str(place / "words"), "reranker")
    wanted = (np.log1p(np.exp(-3.0)) + np.log1p(np.exp(-1.0))) / 2
    assert measuring.probe_loss(case, {0: place}) == {0: pytest.approx(wanted)}


def test_a_process_that_takes_too_much_memory_is_ended(tmp_path):
    greedy = [sys.executable, "-c", "x = bytearray(300_000_000); import time; time.sleep(60)"]
    with pytest.raises(process.OutOfMemory, match=r"0\.1 GB"):
        process.run(greedy, tmp_path / "log.txt", 0.1)
    with pytest.raises(RuntimeError, match="exit code 3: no such thing"):
        process.run([sys.executable, "-c", "print('no such thing'); exit(3)"], tmp_path / "log.txt")


def test_tables_compare_speeds_and_show_failures(capsys):
    def result(side, seed, ndcg, seconds, **more):
        metrics = {"ndcg@10": ndcg, "mrr@10": ndcg, "recall@100": 1.0}
        times = {"examples": 100, "step_seconds": seconds, "seconds": 2 * seconds}
        common = {"data": "words", "kind": "embedding", "side": side, "seed": seed}
        return Result(**common | {"metrics": metrics} | times | more)

    results = [
        result("ours", 0, 0.5, 1.0, probe={"0": 3.0, "4": 2.5}, compile_seconds=0.5),
        result("ours", 1, 0.7, 2.0),
        result("peer", 0, 0.6, 5.0, probe={"0": 3.0, "4": 2.5001}),
        result("peer-cached", 0, 0.0, 5.0, metrics={}, failure="more than 1 GB"),
    ]
    tables.show(results)
    output = capsys.readouterr().out
    assert "0.6000 ± 0.1414" in output and "5.00" in output
    assert "more than 1 GB" in output and "2.5001" in output
    assert tables.best(results[:2], tables.step_speed) == 100
    assert "active" not in output
    results[0].metrics["active_query"] = 123.456
    results[1].metrics["active_query"] = 133.456
    tables.show(results)
    assert "128.5 ± 7.1" in capsys.readouterr().out
    assert "active_query 123.5" in tables.line(results[0])
    assert "nd" in tables.line(results[0]) and "seed 0" in tables.line(results[0])


def test_a_peer_that_is_not_installed_is_named(place, tmp_path, monkeypatch):
    monkeypatch.setattr(comparison.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"torch.*--peer-python"):
        next(comparison.compare(settings(place, tmp_path / "out")))

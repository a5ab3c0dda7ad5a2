"""Rerankers in training: the loss of packed pairs, heads, the activation, and a run."""

import dataclasses
import functools
import json

import jax
import models
import numpy as np
import pairs
import pytest

from modernbert_jax import ModernBert, convert
from modernbert_jax.convert import names, run_checkpoint
from modernbert_jax.errors import UserError
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.pipeline import IDENTITY, LayerNorm, Normalize, Pipeline, Pooling
from modernbert_jax.train.engine.gradients import gradients as engine_gradients
from modernbert_jax.train.retrieval import rerank_evaluation, training
from modernbert_jax.train.retrieval.batches import Batches
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig
from modernbert_jax.train.retrieval.data import Collection, read_collection
from modernbert_jax.train.retrieval.evaluation.reranking import lists_of
from modernbert_jax.train.retrieval.rerank_evaluation import CollectionReranker, with_candidates
from modernbert_jax.train.retrieval.rerank_validation import RerankerValidation, metric_of
from modernbert_jax.train.retrieval.reranker import Reranker, pipeline_of
from modernbert_jax.train.retrieval.session import TRAINEES

EXAMPLES = pairs.records(5, negatives=2)
EXAMPLES[3].pop("negative_1")  # a shorter list
WHOLE = Shape(rows=8, length=128, documents=8)
MANY = Shape(rows=1, length=64, documents=4, microbatches=40)
SIGMOID = "torch.nn.modules.activation.Sigmoid"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A bare encoder."""
    return pairs.model(tmp_path_factory.mktemp("models") / "encoder")


def config(folder, loss="binary-cross-entropy", **changes):
    values = {
        "kind": "reranker",
        "model": str(folder),
        "loss": LossConfig(name=loss),
        "batch_examples": 8,
        "max_length": 48,
        "attention_dropout": 0.2,
    }
    return RetrievalConfig(**values | changes)


@functools.partial(jax.jit, static_argnums=0)
def gradients(objective, params, batch):
    microbatches = objective.microbatches(batch, jax.random.key(1))
    return engine_gradients(objective, lambda p: p, params, microbatches)


@pytest.mark.parametrize(
    ("loss", "head"), [("binary-cross-entropy", "modules"), ("multiple-negatives-ranking", None)]
)
def test_the_loss_does_not_depend_on_packing_and_microbatches(loss, head, folder):
    """Of single scores in one pass, of lists in two; dropout and lists of two lengths included."""
    reranker = Reranker.open(config(folder, loss, head=head or "checkpoint"))
    params = reranker.begin().params
    dataset = reranker.tokenized(pairs.dataset(EXAMPLES))
    results = []
    for shape in (WHOLE, MANY):
        objective = reranker.objective(shape)
        assert objective.coupled == (loss != "binary-cross-entropy")
        width = dataset.targets.shape[1]
        batches = Batches([dataset], shape, 8, targets=width, columns=dataset.width)
        batch = batches.of(pairs.members(*range(5)))
        sums, grads = gradients(objective, params, batch)
        results.append((float(sums.loss) / float(sums.count), jax.tree.map(np.asarray, grads)))
    (one, of_one), (many, of_many) = results
    assert int(batch.used) > 3 and one == pytest.approx(many, rel=1e-5)
    for x, y in zip(*map(jax.tree.leaves, (of_one, of_many)), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-5 * max(float(np.abs(y).max()), 1e-2))
    # Without dropout it is the loss of the scores that the exported model gives each pair alone.
    scores, mean = jax.jit(objective.evaluated)(params, batch)
    exported = ModernBert(reranker.begin().exported(params), attention="dense")
    own = [(e["query"], text) for e in EXAMPLES for n, text in e.items() if n != "query"]
    present = dataset.sequences >= 0
    alone = exported.predict(own, activation=IDENTITY)
    np.testing.assert_allclose(
        np.asarray(scores)[: present.shape[1], :5].T[present], alone, atol=1e-5
    )
    mask = np.asarray(batch.present)
    targets = np.pad(dataset.targets, ((0, 3), (0, 0))) if dataset.targets.size else None
    wanted = reranker.loss(np.asarray(scores), targets, mask=mask, valid=batch.valid)
    assert float(mean) == pytest.approx(float(wanted), rel=1e-5)
    if loss == "binary-cross-entropy":
        assert one > 0.1


@pytest.mark.parametrize("loss", ["mse", "list-net", "lambda-loss", "multiple-negatives-ranking"])
def test_only_binary_cross_entropy_has_a_sigmoid(loss, folder):
    checkpoint = convert.load(folder)
    assert pipeline_of(config(folder, loss), checkpoint).activation == IDENTITY
    assert pipeline_of(config(folder), checkpoint).activation == SIGMOID


def test_heads(tmp_path, folder):
    def opened(source, **changes):
        return Reranker.open(config(source, **changes))

    bare = opened(folder)
    assert bare.head == "sequence_classification" and bare.pipeline.steps == ()
    assert opened(folder, pooling="cls").model.classifier_pooling == "cls"
    own = opened(folder, head="modules", prompts={"query": "ask: "})
    assert [type(step).__name__ for step in own.pipeline.steps] == [
        "Pooling",
        "Dense",
        "LayerNorm",
        "Dense",
    ]
    assert own.pipeline.prompt(None) == "ask: " and own.pipeline.max_length == 48
    # A reranker keeps its head and its weights; another head starts anew.
    published = models.write("reranker_modules", tmp_path / "reranker")
    kept = opened(published)
    assert kept.begin().new == () and kept.pipeline.steps[2].path == "3_LayerNorm"
    assert opened(published, head="classifier").begin().new[0] == "head.dense.weight"
    classifier = models.write("reranker", tmp_path / "classifier")
    assert opened(classifier).begin().new == ()
    # Layers of an embedding model are not those of a reranker.
    embedding = models.write("normed", tmp_path / "embedding")
    assert "2_Dense/linear.weight" in opened(embedding, head="modules").begin().new


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": "max"}, "pooling is 'max'; a classifier has cls or mean"),
        ({"include_prompt": False}, "use --head modules"),
        ({"matryoshka_dims": (8,)}, "matryoshka_dims is not for kind reranker"),
        ({"prompts": {"document": "d"}}, "for query only"),
        ({"max_length": 9000}, "max_length is 9,000 tokens; the model supports 8,192 at most"),
        ({"kind": "embedding", "head": "modules", "loss": "triplet"}, "head is not for kind"),
    ],
)
def test_refusals(folder, changes, message):
    with pytest.raises(UserError, match=message):
        Reranker.open(config(folder, **changes))


class Order(RerankerValidation):
    """The metrics alone."""

    def __init__(self):
        pass


def numbered(lists, scores):
    """The values of a validation for these scores."""
    return np.stack([scores, np.where(np.isnan(scores), np.nan, lists.sequences)], -1)


def test_metrics_of_lists(folder):
    """Of graded lists those of trec_eval, of a teacher's scores nDCG."""
    reranker = Reranker.open(config(folder, "list-net"))
    lists = reranker.tokenized(pairs.dataset(EXAMPLES))
    scores = np.array([[3, 2, 1], [2, 3, 1], [1, 1, 1], [0, 5, np.nan], [9, 8, 7]], np.float32)
    assert metric_of(lists) == "ndcg@10"
    found = Order().metrics(lists, numbered(lists, scores))
    assert found["mrr@10"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 2 + 1) / 5)
    assert next(iter(found)) == "ndcg@10" and found["map"] == found["mrr@10"]
    teacher = dataclasses.replace(lists, targets=np.float32([[0.5, -1, 2]] * 5))
    scores = np.float32([[2, 1, 3]] * 5)
    assert Order().metrics(teacher, numbered(teacher, scores)) == {"ndcg@10": 1.0}


def test_a_document_of_several_rows_of_a_query_counts_once(folder):
    """With its best grade: here third of three, and not behind itself."""
    rows = [("q", "a", "b"), ("q", "c", "b")]
    rows = [dict(zip(("query", "positive", "negative"), row, strict=True)) for row in rows]
    lists = Reranker.open(config(folder, "list-net")).tokenized(pairs.dataset(rows))
    scores = np.float32([[1, 2], [0, 2]])
    assert Order().metrics(lists, numbered(lists, scores))["map"] == pytest.approx(
        (1 / 2 + 2 / 3) / 2
    )


def test_a_run_learns_and_its_export_gives_its_scores(folder, tmp_path):
    """Positives share two words with their query, negatives one: the order improves."""
    train = pairs.write(tmp_path / "train.jsonl", pairs.records(48, negatives=1))
    held_out = pairs.write(tmp_path / "dev.jsonl", pairs.records(8, negatives=3, seed=1))
    made = config(
        folder,
        head="modules",
        train=(str(train),),
        validation=(str(held_out),),
        output=str(tmp_path / "run"),
        epochs=3.0,
        batch_examples=16,
        learning_rate=3e-3,
        attention_dropout=0.0,
        eval_every=3,
    )
    result = training.train(made)
    assert result["metric"] == "ndcg@10" and result["best"]["metrics"]["ndcg@10"] > 0.5
    export = tmp_path / "run/export"
    checkpoint = convert.load(export)
    assert checkpoint.pipeline.activation == SIGMOID and checkpoint.pipeline.max_length == 48
    assert isinstance(checkpoint.pipeline.steps[2], LayerNorm)
    start = names.flatten(convert.load(folder).params)
    moved = names.flatten(checkpoint.params["encoder"])
    assert any(np.abs(moved[path] - x).max() > 1e-3 for path, x in start.items())
    card = (export / "README.md").read_text()
    assert "CrossEncoder" in card and "text-ranking" in card
    scores = ModernBert(checkpoint, attention="dense").predict([("ba ce", "di ba ce")])
    assert 0 < scores[0] < 1
    assert training.train(made) == result  # it is finished


@pytest.mark.parametrize(("kind", "loss"), [("embedding", "cosent"), ("reranker", "mse")])
def test_models_without_layers_are_read_from_checkpoints_of_runs(kind, loss, folder, monkeypatch):
    trainee = TRAINEES[kind].open(config(folder, loss, kind=kind, prompts={"query": "ask: "}))
    start = trainee.begin()
    model = start.exported(start.params)
    noted = json.loads(json.dumps(run_checkpoint.facts(model, ["log_scale"])))
    described = noted, {**start.params, "log_scale": np.zeros(())}
    monkeypatch.setattr(run_checkpoint, "_described", lambda directory: described)
    monkeypatch.setattr(run_checkpoint, "_loaded", lambda directory, tree: tree)
    read = run_checkpoint.read(folder / "run" / "checkpoints" / "1")
    assert read.pipeline == model.pipeline == trainee.pipeline
    assert (read.head, read.labels) == (model.head, model.labels)
    jax.tree.map(np.testing.assert_array_equal, read.params, model.params)


def test_a_model_with_several_scores_is_refused(tmp_path, folder):
    checkpoint = convert.load(models.write("reranker_modules", tmp_path / "a"))
    steps = checkpoint.pipeline.steps
    wide = dataclasses.replace(steps[-1], out_features=3)
    spoiled = Pipeline(kind="reranker", steps=(*steps[:-1], wide))
    checkpoint = convert.with_pipeline(checkpoint, spoiled)
    with pytest.raises(UserError, match="gives 3 scores"):
        pipeline_of(config(folder), checkpoint)
    vectors = Pipeline(kind="embedding", steps=(Pooling(modes=("mean",)), Normalize()))
    assert pipeline_of(config(folder), convert.with_pipeline(checkpoint, vectors)).steps == ()


def test_bm25_is_the_first_stage_of_a_collection(tmp_path):
    pytest.importorskip("bm25s")
    corpus = {"d0": "ba ce", "d1": "di fo", "d2": "ce fo"}
    pairs.write_collection(tmp_path, corpus, {"q": "ba ce"}, {"q": {"d1": 1}})
    found = with_candidates(read_collection(tmp_path))
    assert found.candidates == {"q": ["d0", "d2"]}
    assert with_candidates(found) is found
    (one,) = lists_of(found)
    assert one.documents == ("ba ce", "ce fo", "di fo") and one.grades == (0, 0, 1)


def test_collections_of_one_name_have_lists_of_their_own(tmp_path, monkeypatch):
    class Constant:
        def using(self, params):
            return self

        def blocks(self, pairs):
            yield np.zeros(len([*pairs]), np.float32)

    monkeypatch.setattr(rerank_evaluation.PairScorer, "of", lambda *_, **__: Constant())
    corpus = [{"_id": i, "text": f"ba {i}"} for i in "abcd"]
    file = str(pairs.write(tmp_path / "corpus.jsonl", corpus))
    first, second = (
        Collection("same", [file], {"q": "ba"}, {"q": {"a": 1}}, {"q": list(found)})
        for found in ("ab", "abcd")
    )
    evaluate = CollectionReranker(None, None, None)  # only the lists differ
    assert [evaluate({}, each)["map"] for each in (first, second)] == [1 / 2, 1 / 4]

"""A run from texts to an exported sparse encoder, its regularization, and what is refused."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pairs
import pytest

from modernbert_jax import ModernBert, convert
from modernbert_jax.errors import UserError
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.pipeline import Pipeline, SpladePooling
from modernbert_jax.train.engine.metrics import read_rows
from modernbert_jax.train.retrieval import losses, training
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig
from modernbert_jax.train.retrieval.objective import WholeBatch
from modernbert_jax.train.retrieval.sparse import Sparse, pipeline_of
from modernbert_jax.train.retrieval.sparse_objective import SparseObjective


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sparse")
    pairs.masked_lm(folder / "base")
    pairs.write(folder / "train.jsonl", pairs.records(60))
    pairs.write(folder / "dev.jsonl", pairs.records(20, seed=1))
    return folder


def config_of(folder, **changes):
    values = {
        "kind": "sparse",
        "model": str(folder / "base"),
        "train": (str(folder / "train.jsonl"),),
        "validation": (str(folder / "dev.jsonl"),),
        "output": str(folder / "run"),
        "prompts": {"query": "ba: "},
        "max_length": 64,
        "learning_rate": 1e-2,
        "epochs": 4,
        "batch_examples": 20,
        "query_flops": 3e-2,
        "document_flops": 2e-2,
        "max_active_dims": 40,
        "attention_dropout": 0.1,
        "eval_every": 0,
        "log_every": 1,
        "keep_best": False,
    }
    return RetrievalConfig(**values | changes)


@pytest.fixture(scope="module")
def run(folder):
    return training.train(config_of(folder))


def test_it_learns_sparse_vectors(run, folder):
    """The regularization rises with the square of the step over a third of the run."""
    rows = [row for row in read_rows(folder / "run" / "metrics.jsonl") if "loss" in row]
    assert len(rows) == 12
    ramps = [row["flops_ramp"] for row in rows]
    np.testing.assert_allclose(ramps, [min(step / 4, 1) ** 2 for step in range(12)], rtol=1e-5)
    for name in ("flops_query", "flops_document", "active_query", "active_document"):
        first, last = (np.mean([row[name] for row in some]) for some in (rows[:3], rows[-3:]))
        assert 0 < last < 0.9 * first, name
    assert rows[0]["active_document"] > 40
    losses = [row["loss"] for row in rows]
    assert np.mean(losses[-3:]) < 0.85 * np.mean(losses[:3])
    assert run["metric"] == "accuracy"
    assert run["new_parameters"] == []


def test_the_export_has_the_trained_vectors(run, folder):
    model = ModernBert.from_pretrained(folder / "run" / "export")
    pipeline = model.pipeline
    assert pipeline.kind == "sparse" and pipeline.similarity == "dot"
    assert pipeline.prompts == {"query": "ba: "} and pipeline.max_active_dims == 40
    lines = (folder / "dev.jsonl").read_text().splitlines()
    query, positive, negative = zip(*(json.loads(x).values() for x in lines), strict=True)
    whole = model.config.vocab_size
    queries = model.sparse(query, whole, prompt_name="query")
    documents = (model.sparse(texts, whole) for texts in (positive, negative))
    right, wrong = (np.diagonal(model.similarity(queries, x)) for x in documents)
    assert np.mean(right > wrong) == pytest.approx(run["last"]["metrics"]["accuracy"])
    card = (folder / "run" / "export" / "README.md").read_text()
    for words in ("SparseEncoder", 'model.sparse(queries, prompt_name="query")', "| query flops |"):
        assert words in card


def test_the_loss_is_that_of_the_vectors_and_the_regularization():
    """In any order of the documents, and without examples that do not exist."""
    config = RetrievalConfig(kind="sparse", query_flops=0.5, document_flops=0.25, flops_ramp=0.5)
    objective = SparseObjective(
        config=config,
        model=pairs.architecture(),
        loss_kind=config.loss.loss("sparse"),
        documents=4,
        pooling=SpladePooling(),
    )
    rng = np.random.default_rng(0)
    vectors = np.maximum(rng.normal(size=(3, 4, 16)), 0).astype(np.float32)
    numbers = rng.permutation(16).reshape(1, 4, 4)  # of 12; the rest is none
    outputs = np.concatenate([vectors.reshape(12, 16), np.ones((4, 16), np.float32)])[numbers]
    valid = np.array([True, True, True, False])
    whole = WholeBatch(
        documents=jnp.asarray(numbers),
        valid=valid,
        present=np.broadcast_to(valid, (3, 4)),
        targets=np.zeros((4, 0), np.float32),
        guide=np.zeros((3, 4, 0), np.float32),
        key=jax.random.key(0),
        progress=np.float32(0.25),
    )
    sums = jax.jit(objective.loss)({}, outputs, whole)
    own = vectors[:, :3]
    ranking = losses.multiple_negatives_ranking(own[0], own[1:], scale=1.0, similarity="dot")
    of_queries, of_documents = (np.square(x.mean((0, 1))).sum() for x in (own[:1], own[1:]))
    wanted = ranking + 0.25 * (0.5 * of_queries + 0.25 * of_documents)
    assert float(sums.loss) == pytest.approx(3 * float(wanted), rel=1e-5)
    metrics = {name: float(x) / 3 for name, x in sums.metrics.items()}
    assert metrics["flops_query"] == pytest.approx(of_queries, rel=1e-5)
    assert metrics["flops_document"] == pytest.approx(of_documents, rel=1e-5)
    assert metrics["active_document"] == pytest.approx((own[1:] > 0).sum(-1).mean())
    assert metrics["flops_ramp"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"matryoshka_dims": (8,)}, "matryoshka_dims is not for kind sparse"),
        ({"pooling": "cls"}, "pooling is not for kind sparse"),
        ({"loss": LossConfig(name="gist")}, "'gist' is unknown for kind sparse"),
        ({"loss": LossConfig(orthogonality=1.0)}, "orthogonality is not for sparse"),
        ({"kind": "embedding"}, "query_flops is not for kind embedding"),
    ],
)
def test_options_of_other_kinds_are_refused(changes, message, tmp_path):
    with pytest.raises(UserError, match=message):
        config_of(tmp_path, **changes)


def test_checkpoints_that_cannot_be_sparse_are_refused(folder, tmp_path):
    base = convert.load(folder / "base")
    with pytest.raises(UserError, match="max_active_dims is 321; the vocabulary has 320"):
        pipeline_of(config_of(folder, max_active_dims=321), base)
    encoder = config_of(folder, model=str(pairs.model(tmp_path / "encoder")))
    with pytest.raises(UserError, match=r"no masked-LM head.*name a masked language model"):
        Sparse.open(encoder)
    sparse = Pipeline(kind="sparse", steps=(SpladePooling(strategy="sum"),), max_active_dims=9)
    convert.save(convert.with_pipeline(base, sparse), tmp_path / "own")
    own = Sparse.open(config_of(folder, model=str(tmp_path / "own"), max_active_dims=0))
    assert own.pipeline.splade.strategy == "sum" and own.pipeline.max_active_dims == 9
    assert isinstance(own.objective(Shape(rows=1, length=8, documents=2)), SparseObjective)
    embedding = RetrievalConfig(kind="embedding", model=str(tmp_path / "own"))
    with pytest.raises(UserError, match="is a sparse model; an embedding model starts from"):
        training.train(dataclasses.replace(embedding, train=(str(folder / "train.jsonl"),)))


@pytest.mark.slow
def test_meshes_compute_the_same():
    script = Path(__file__).with_name("sparse_on_mesh.py")
    subprocess.run([sys.executable, script], check=True, timeout=600)

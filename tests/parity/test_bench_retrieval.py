"""sentence-transformers' side of `bench retrieval`: it learns what we learn, step by step."""

import importlib.util
import json

import corpus
import labelled
import numpy as np
import pytest

from modernbert_jax import convert
from modernbert_jax.train.bench.retrieval import comparison, data
from modernbert_jax.train.bench.retrieval.case import Case
from modernbert_jax.train.bench.retrieval.settings import Settings, SparseTraining, Training

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("datasets") is None or importlib.util.find_spec("bm25s") is None,
    reason="the trainer needs datasets, and the negatives bm25s",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench")
    labelled.checkpoint(folder / "model", corpus.make_tokenizer(), num_hidden_layers=2)
    rng = np.random.default_rng(0)
    rows = []
    for i in range(110):
        words = [corpus.WORDS[j] for j in rng.integers(0, len(corpus.WORDS), 20)]
        rows.append({"id": f"d{i}", "text": " ".join(words[:6]) + f"\n\n{' '.join(words)}"})
    (folder / "text.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data.make("titles", [folder / "text.jsonl"], folder / "words", dev=12, test=10)
    return folder


@pytest.fixture(scope="module")
def teacher(place):
    """A reranker with random weights whose scores of documents differ."""
    settings = Settings(data=(str(place / "words"),), model=str(place / "model"), output=str(place))
    start = Case(settings, settings.data[0], "reranker").start(0)
    checkpoint = convert.load(start)
    checkpoint.params["classifier"]["kernel"] *= 20
    convert.save(checkpoint, place / "teacher", "hf")
    return place / "teacher"


@pytest.mark.parametrize(
    ("kind", "peer"),
    [
        ("embedding", "peer"),
        ("embedding", "peer-cached"),
        ("sparse", "peer"),
        ("sparse", "peer-cached"),
        ("late-interaction", "peer"),
        ("late-interaction-distilled", "peer"),
        ("reranker", "peer"),
    ],
)
def test_both_sides_make_the_same_steps(tmp_path, place, teacher, kind, peer):
    training = {"batch_examples": 16, "learning_rate": 2e-3}
    settings = Settings(
        data=(str(place / "words"),),
        model=str(place / "model"),
        output=str(tmp_path / "out"),
        kinds=(kind,),
        sides=("ours", peer),
        seeds=(3,),
        embedding=Training(**training),
        sparse=SparseTraining(**training, query_flops=0.1, document_flops=0.1),
        late_interaction=Training(**training),
        late_interaction_distilled=Training(**training),
        reranker=Training(**training),
        max_length=32,
        microbatch_tokens=256,
        negatives=1,
        teacher=str(teacher),
        groups=2,
        group_size=5,
        probes=2,
        keep_models=True,
    )
    ours, theirs = comparison.compare(settings)
    losses = np.array([[*side.probe.values()] for side in (ours, theirs)])
    assert [*ours.probe] == [*theirs.probe] and losses.shape[1] >= 3
    assert abs(losses[0, -1] - losses[0, 0]) > 1e-3  # it learns something
    np.testing.assert_allclose(losses[0], losses[1], atol=2e-4)
    for metric, value in ours.metrics.items():
        assert value == pytest.approx(theirs.metrics[metric], rel=0.005, abs=0.02), metric
    assert ("active_document" in ours.metrics) == (kind == "sparse")
    assert ours.examples == theirs.examples and theirs.step_seconds > 0 < ours.peak_memory
    for side in ("ours", peer):
        folder = tmp_path / "out" / "words" / kind
        assert convert.load(folder / "models" / f"{side}-3").tokenizer
        assert not (folder / f"{side}-3").exists()

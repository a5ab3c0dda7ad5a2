"""Runs that train a part of the model, or keep the best one: what changes, what is exported."""

from pathlib import Path

import numpy as np
import pytest
import retrieval_runs
from safetensors.numpy import load_file

from modernbert_jax import convert
from modernbert_jax.convert import names
from modernbert_jax.train.engine import peft
from modernbert_jax.train.engine.lora import Lora
from modernbert_jax.train.engine.metrics import read_rows
from modernbert_jax.train.retrieval import training
from modernbert_jax.train.retrieval.data import read_collection
from modernbert_jax.train.retrieval.encoding import TextEncoder
from modernbert_jax.train.retrieval.evaluation import evaluate

pytestmark = pytest.mark.slow

QKV = "model.layers.0.attn.Wqkv.weight"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder of model, data and runs."""
    return retrieval_runs.write(tmp_path_factory.mktemp("parts"))


def run(place: Path, name: str, **changes) -> tuple[dict, dict[str, np.ndarray]]:
    """The result of a short embedding run that searches a collection, and the tensors it changed.

    Asserts that the exported model searches the collection as the run did.
    """
    options = {"evaluation": ("search",), "epochs": 1, "learning_rate": 1e-2, **changes}
    result = training.train(retrieval_runs.config(place, "embedding", name, **options))
    encoder = TextEncoder.load(str(place / name / "export"))
    metrics = evaluate(encoder, read_collection(place / "search"))
    reported = result[result["exported"]]["metrics"]
    for metric, value in metrics.items():
        assert reported[f"{metric}/search"] == pytest.approx(value, abs=1e-6)
    before, after = (
        names.to_tensors(checkpoint.params, checkpoint.rows())
        for checkpoint in map(convert.load, (place / "base", place / name / "export"))
    )
    assert {*after} - {*before} == {f"2_Dense/linear.{leaf}" for leaf in ("weight", "bias")}
    differences = {name: after[name] - x for name, x in before.items()}
    return result, {name: x for name, x in differences.items() if x.any()}


def test_adapters_alone_are_trained_and_merged_into_the_export(place):
    lora = Lora(rank=2, alpha=6.0, targets=("attn.Wqkv",))
    _, changed = run(place, "lora", lora=lora, keep_best=False)
    files = load_file(place / "lora" / "adapter" / peft.WEIGHTS)
    a, b = (files[f"base_model.model.layers.0.attn.Wqkv.lora_{x}.weight"] for x in "AB")
    assert len(files) == 2 and [*changed] == [QKV]
    np.testing.assert_allclose(changed[QKV], 6.0 / 2 * b @ a, atol=1e-6)
    assert np.abs(changed[QKV]).max() > 1e-3


def test_frozen_tensors_stay(place):
    _, changed = run(place, "frozen", freeze=("embeddings", r"mlp\.", "norm"), keep_best=False)
    assert {*changed} == {QKV, "model.layers.0.attn.Wo.weight"}


def test_the_model_with_the_best_search_is_kept(place):
    """Trained on negatives in place of positives it gets worse, so the first evaluation is best."""
    columns = ("query", "negative_0", "positive")
    result, _ = run(place, "best", train=("train.jsonl",), columns=columns, epochs=3, eval_every=3)
    rows = [row for row in read_rows(place / "best" / "metrics.jsonl") if "eval_loss" in row]
    values = {row["step"]: row["eval_retrieval_ndcg@10"] for row in rows}
    assert len(values) >= 3 and values[3] > values[max(values)] + 0.05
    assert result["best"]["step"] == 3 and result["exported"] == "best"

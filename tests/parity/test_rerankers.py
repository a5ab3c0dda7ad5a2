"""Rerankers that are trained here, in sentence-transformers: the same scores."""

import models
import numpy as np
import pairs
import pytest
import transformers

from modernbert_jax import ModernBert
from modernbert_jax.train.retrieval import training
from modernbert_jax.train.retrieval.config import LossConfig, RetrievalConfig

NEW = int(transformers.__version__.split(".")[0]) > 4


@pytest.mark.parametrize("loss", ["binary-cross-entropy", "list-net"])
@pytest.mark.parametrize("head", ["classifier", *(["modules"] if NEW else [])])
def test_an_exported_reranker_gives_its_scores(loss, head, tmp_path):
    from sentence_transformers import CrossEncoder

    train = pairs.write(tmp_path / "train.jsonl", pairs.records(16, negatives=2))
    config = RetrievalConfig(
        kind="reranker",
        model=str(pairs.model(tmp_path / "model")),
        loss=LossConfig(name=loss),
        head=head,
        train=(str(train),),
        output=str(tmp_path / "run"),
        epochs=1.0,
        batch_examples=8,
        learning_rate=1e-2,
        max_length=40,
        prompts={"query": "ba ce: "} if NEW else {},
    )
    training.train(config)
    export = tmp_path / "run/export"
    ours = ModernBert.from_pretrained(export, attention="dense").predict(models.PAIRS)
    theirs = CrossEncoder(str(export), device="cpu").predict(models.PAIRS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert (ours.min() >= 0 and ours.max() <= 1) == (loss == "binary-cross-entropy")

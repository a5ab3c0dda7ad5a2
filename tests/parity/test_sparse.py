"""Sparse encoders that are trained here, in sentence-transformers: the same vectors and scores."""

import models
import numpy as np
import pairs
import pytest

from modernbert_jax import ModernBert
from modernbert_jax.train.retrieval import training
from modernbert_jax.train.retrieval.config import RetrievalConfig


@pytest.mark.parametrize("most", [0, 50])
def test_an_exported_sparse_encoder_gives_its_vectors(most, tmp_path):
    import sentence_transformers
    from sentence_transformers import SparseEncoder

    train = pairs.write(tmp_path / "train.jsonl", pairs.records(16))
    config = RetrievalConfig(
        kind="sparse",
        model=str(pairs.masked_lm(tmp_path / "model")),
        train=(str(train),),
        output=str(tmp_path / "run"),
        epochs=1.0,
        batch_examples=8,
        learning_rate=1e-2,
        max_length=40,
        max_active_dims=most,
        prompts={"query": "ba ce: ", "document": "di: "},
    )
    training.train(config)
    export = tmp_path / "run/export"
    ours, theirs = ModernBert.from_pretrained(export), SparseEncoder(str(export), device="cpu")
    own = [ours.sparse(models.TEXTS, prompt_name=side) for side in ("query", "document")]
    # Version 5 does not read the setting, and takes it as an argument.
    is_old = sentence_transformers.__version__.startswith("5.")
    options = {"max_active_dims": most or None} if is_old else {}
    encode = theirs.encode_query, theirs.encode_document
    other = [encode_side(models.TEXTS, **options) for encode_side in encode]
    for vectors, tensor in zip(own, other, strict=True):
        dense = np.zeros(tensor.shape, np.float32)
        for row, (indices, values) in zip(dense, vectors, strict=True):
            row[indices] = values
        np.testing.assert_allclose(dense, tensor.to_dense().numpy(), atol=1e-5)
        assert (dense != 0).sum(1).max() <= (most or dense.shape[1])
    assert theirs.similarity_fn_name == "dot"
    np.testing.assert_allclose(ours.similarity(*own), theirs.similarity(*other), rtol=1e-5)

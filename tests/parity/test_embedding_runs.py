"""Embedding models that are trained here, in sentence-transformers: vectors and similarities."""

import models
import numpy as np
import pairs
import pytest
import sentence_transformers
from sentence_transformers import SentenceTransformer

from modernbert_jax import ModernBert
from modernbert_jax.train.retrieval import training
from modernbert_jax.train.retrieval.config import RetrievalConfig

NEW = int(sentence_transformers.__version__.split(".")[0]) > 5
SPACE = " " if NEW else ""  # version 5 counts no space at the end of a prompt that is left out
PROMPTS = {"query": f"ba ce:{SPACE}", "document": f"di:{SPACE}"}
TEXTS = [*models.TEXTS, *(text for row in pairs.records(6) for text in row.values())]


@pytest.mark.parametrize(
    ("normalize", "similarity", "include_prompt"),
    [("yes", "dot", False), ("no", "euclidean", True)],
)
def test_an_exported_embedding_model_gives_its_vectors(
    normalize, similarity, include_prompt, tmp_path
):
    """With a projection, prompts and leading dimensions that are vectors on their own."""
    train = pairs.write(tmp_path / "train.jsonl", pairs.records(16, negatives=2))
    config = RetrievalConfig(
        kind="embedding",
        model=str(pairs.model(tmp_path / "model")),
        train=(str(train),),
        output=str(tmp_path / "run"),
        epochs=1.0,
        batch_examples=8,
        learning_rate=1e-2,
        max_length=40,
        prompts=PROMPTS,
        include_prompt=include_prompt,
        projection_dims=16,
        matryoshka_dims=(16, 8),
        normalize=normalize,
        similarity=similarity,
    )
    training.train(config)
    export = tmp_path / "run/export"
    ours = ModernBert.from_pretrained(export, attention="dense")
    theirs = SentenceTransformer(str(export), device="cpu")
    assert theirs.similarity_fn_name == similarity and theirs.max_seq_length == 40
    assert {name: theirs.prompts[name] for name in PROMPTS} == PROMPTS
    whole = ours.encode(TEXTS, prompt_name="query")
    assert (normalize == "yes") == np.allclose(np.linalg.norm(whole, axis=-1), 1, atol=1e-4)
    for dims in (None, 8):
        queries = theirs.encode_query(TEXTS, truncate_dim=dims)
        documents = theirs.encode_document(TEXTS, truncate_dim=dims)
        own = [ours.encode(TEXTS, prompt_name=name, truncate_dim=dims) for name in PROMPTS]
        for got, want in zip(own, (queries, documents), strict=True):
            assert got.shape == (len(TEXTS), dims or 16)
            np.testing.assert_allclose(got, want, atol=2e-5)
        want = theirs.similarity(queries, documents).numpy()
        np.testing.assert_allclose(ours.similarity(*own), want, atol=1e-4)

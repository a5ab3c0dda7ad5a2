"""Texts to vectors and pairs to scores, by the model's own prompts, lengths and widths."""

import json
import shutil

import models
import numpy as np
import pytest

from modernbert_jax import ModernBert, UserError
from modernbert_jax.inference.text_model import Encoding
from modernbert_jax.train.retrieval import guide
from modernbert_jax.train.retrieval.encoding import PairScorer, TextEncoder
from modernbert_jax.train.retrieval.losses import LossConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Folders of models, written when they are first asked for."""
    root = tmp_path_factory.mktemp("models")
    return lambda name: (root / name) if (root / name).exists() else models.write(name, root / name)


def test_sides_have_the_prompts_of_the_model(folder):
    bert = ModernBert.from_pretrained(folder("mean"))
    encoder = TextEncoder.load(str(folder("mean")))
    assert encoder.similarity == "cosine"
    names = set(bert.pipeline.prompts)
    assert "query" in names
    queries = encoder.encode(models.QUERIES, "query")
    assert np.allclose(queries, bert.encode(models.QUERIES, prompt_name="query"), atol=1e-6)
    assert not np.allclose(queries, bert.encode(models.QUERIES, prompt=""), atol=1e-3)
    name = next((n for n in ("document", "passage", "corpus") if n in names), None)
    documents = np.concatenate([*encoder.blocks(iter(models.TEXTS), "document")])
    assert np.allclose(documents, bert.encode(models.TEXTS, prompt_name=name), atol=1e-6)


def test_an_encoding_replaces_what_the_model_says(folder):
    encoder = TextEncoder.load(
        str(folder("mean")), Encoding(prompt="", pooling="cls", width=5, max_length=4)
    )
    bert = ModernBert.from_pretrained(folder("mean"))
    expected = bert.encode(models.TEXTS, pooling="cls", prompt="", max_length=4, truncate_dim=5)
    assert np.allclose(encoder.encode(models.TEXTS, "query"), expected, atol=1e-6)
    assert encoder.encode([], "query").shape[0] == 0


def test_a_bare_encoder_takes_the_mean_and_other_parameters(folder, capsys):
    encoder = TextEncoder.load(str(folder("base")))
    assert "means of their tokens" in capsys.readouterr().err
    bert = ModernBert.from_pretrained(folder("base"))
    assert np.allclose(encoder.encode(models.TEXTS, "document"), bert.encode(models.TEXTS), 1e-5)
    import jax

    other = encoder.using(jax.tree.map(lambda x: x * 1.5, encoder.params))
    assert not np.allclose(other.encode(models.TEXTS, "query"), bert.encode(models.TEXTS))


def test_a_guide_says_once_that_it_has_no_pooling(folder, tmp_path, capsys):
    class Texts:
        name, strings, texts = "titles", ["hello a", "b c"], np.array([[0, 1]])

    path = str(folder("base"))
    guide.check(
        path, [LossConfig(name=name).loss("embedding") for name in ("gist", "cosent", "gist")], 0
    )
    for data_set in ("train", "validation"):
        guide.guides(path, [Texts()], tmp_path / data_set)
    assert capsys.readouterr().err.count("means of their tokens") == 1


def test_scores_of_pairs_are_logits(folder):
    scorer = PairScorer.load(str(folder("reranker")))
    logits = np.concatenate([*scorer.blocks(iter(models.PAIRS))])
    scores = ModernBert.from_pretrained(folder("reranker")).predict(models.PAIRS)
    assert np.allclose(1 / (1 + np.exp(-logits)), scores, atol=1e-6)


def test_models_of_other_kinds_are_refused(folder, capsys):
    with pytest.raises(UserError, match="late-interaction"):
        TextEncoder.load(str(folder("colbert")))
    one = folder("choice").with_name("one")  # its head is that of a classifier with one label
    shutil.copytree(folder("choice"), one)
    config = json.loads((one / "config.json").read_text()) | {
        "id2label": {"0": "a"},
        "label2id": {"a": 0},
    }
    config["architectures"] = ["ModernBertForSequenceClassification"]
    (one / "config.json").write_text(json.dumps(config))
    for path in (folder("reranker"), one):
        with pytest.raises(UserError, match="pass it as the reranker"):
            TextEncoder.load(str(path))
    for name in ("token", "sequence"):
        with pytest.raises(UserError, match=f"is a {name}.* classification model; name an emb"):
            TextEncoder.load(str(folder(name)))
    pooling = Encoding(pooling="mean")
    assert TextEncoder.load(str(folder("sequence")), pooling, pooling).similarity == "cosine"
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match="no single score"):
        PairScorer.load(str(folder("mean")))
    with pytest.raises(UserError, match="prompt_name is 'nothing'"):
        TextEncoder.load(str(folder("mean")), Encoding(prompt_name="nothing"))

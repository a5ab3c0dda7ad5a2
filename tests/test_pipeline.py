"""How `ModernBert` uses what follows a model, and what it refuses."""

import hf_directory
import models
import numpy as np
import pytest

from modernbert_jax import ModernBert, convert
from modernbert_jax.errors import UserError
from modernbert_jax.pipeline import reranker_activation

NAMES = ("dense", "colbert_plain", "reranker", "choice", "span", "causal_lm", "cls")


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        n: ModernBert(convert.load(models.write(n, folder / n)), attention="dense") for n in NAMES
    }


def test_what_is_asked_for_takes_the_place_of_the_modules(bert):
    model = bert["dense"]
    assert model.encode(models.TEXTS).shape == (4, 20)
    plain = model.encode(models.TEXTS, pooling="mean", prompt="")
    assert plain.shape == (4, 32)
    (ids,) = model.tokenizer.encode(models.TEXTS[:1])
    np.testing.assert_allclose(plain[0], model.hidden([ids])[0].mean(0), atol=1e-5)


def test_normalisation_can_be_left_out(bert):
    own, raw = (bert["dense"].encode(models.TEXTS, normalize=n) for n in (None, False))
    np.testing.assert_allclose(np.linalg.norm(own, axis=-1), 1, rtol=1e-5)
    lengths = np.linalg.norm(raw, axis=-1, keepdims=True)
    assert (np.abs(lengths - 1) > 1e-2).any()
    np.testing.assert_allclose(raw / lengths, own, atol=1e-5)


def test_prompts(bert):
    model, texts = bert["cls"], models.TEXTS
    by_default, named = model.encode(texts), model.encode(texts, prompt_name="query")
    np.testing.assert_array_equal(by_default, named)
    given = model.encode(["query: " + t for t in texts], prompt="")
    np.testing.assert_array_equal(by_default, given)
    assert np.abs(model.encode(texts, prompt_name="document") - named).max() > 1e-3
    assert np.abs(model.encode(texts, prompt="") - named).max() > 1e-3


def test_choices_and_spans(bert):
    found = bert["choice"].predict([("hello", ["a", "b c"]), ("who", ["x", "y", "z"])])
    assert [len(x) for x in found] == [2, 3]
    alone = bert["choice"].predict([("who", ["y"])])
    np.testing.assert_allclose(found[1][1], alone[0][0], atol=1e-5)
    assert bert["choice"].predict([]) == []
    (scores,) = bert["span"].predict([("who?", "hello there")])
    (ids,) = bert["span"].tokenizer.encode_pairs([("who?", "hello there")])
    assert scores.shape == (len(ids), 2)


def test_a_reranker_s_activation(bert):
    model = bert["reranker"]
    raw = model.predict(models.PAIRS, activation="torch.nn.modules.linear.Identity")
    np.testing.assert_allclose(model.predict(models.PAIRS), 1 / (1 + np.exp(-raw)), atol=1e-6)
    assert model.predict([]).shape == (0,)
    assert float(reranker_activation(None, 3)(np.float32(2.0))) == 2.0


@pytest.mark.parametrize(
    ("name", "call", "message"),
    [
        (
            "causal_lm",
            lambda b: b.fill_mask("[MASK]"),
            "no masked-LM head .its head is 'causal_lm'",
        ),
        ("causal_lm", lambda b: b.mlm_logits([[5]]), "no masked-LM head"),
        ("dense", lambda b: b.causal_logits([[5]]), "no decoder's language-model head"),
        ("dense", lambda b: b.predict(["a"]), "no classifier .its head is 'none'"),
        ("dense", lambda b: b.encode_tokens(["a"]), "not for late interaction; use encode"),
        ("dense", lambda b: b.encode(["a"], prompt_name="q"), "prompt_name is 'q'"),
        ("dense", lambda b: b.encode(["a"], prompt="q", prompt_name="query"), "exclude each other"),
        ("colbert_plain", lambda b: b.encode(["a"]), "use encode_tokens"),
        ("reranker", lambda b: b.predict("a"), "inputs is a string"),
        ("reranker", lambda b: b.predict([("a", "b"), "c"]), "input 1 is 'c'; it must be a pair"),
        ("reranker", lambda b: b.predict([("a", "b")], activation="tanh"), "activation is 'tanh'"),
    ],
)
def test_refusals(bert, name, call, message):
    with pytest.raises(UserError, match=message):
        call(bert[name])


def test_saving_keeps_the_modules(bert, tmp_path):
    bert["dense"].save_pretrained(tmp_path / "saved")
    assert convert.load(tmp_path / "saved").pipeline == bert["dense"].pipeline
    plain = hf_directory.write(tmp_path / "plain")
    assert ModernBert.from_pretrained(plain).pipeline is None

"""Modules after the encoder: their use by `ModernBert`, their parameters, and refusals."""

import dataclasses
import re

import hf_directory
import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest
import tiny

from modernbert_jax import ModernBert, convert
from modernbert_jax.convert import names
from modernbert_jax.embedder import Embedder
from modernbert_jax.errors import UserError
from modernbert_jax.late_interaction import pool_tokens
from modernbert_jax.pipeline import (
    Dense,
    LayerNorm,
    Normalize,
    Pipeline,
    Pooling,
    TokenPooling,
    reranker_activation,
)
from modernbert_jax.sharding import AXES, PARAMETERS, parameter_spec

STEPS = (
    Pooling(modes=("mean", "cls")),
    Dense(name="dense_0", path="2_Dense", in_features=64, out_features=20, residual=True),
    LayerNorm(name="layer_norm_0", path="3_LayerNorm", dimension=20),
    Dense(name="dense_1", path="4_Dense", in_features=20, out_features=20, bias=False),
    Normalize(),
)
ROWS = tiny.rows([[5, 3], [6]], 10)


@pytest.fixture(scope="module")
def embedder():
    """A module with dense layers, and fresh parameters."""
    module = Embedder(tiny.config(num_hidden_layers=1), steps=STEPS)
    return module, jax.jit(module.init)(jax.random.key(0), *ROWS)["params"]


def test_every_parameter_has_one_name_and_one_sharding_rule(embedder):
    module, params = embedder
    leaves = names.flatten(params)
    layers = Pipeline(kind="embedding", steps=STEPS).layers
    table = names.table(module.config, "none", layers=layers)
    assert {path: x.shape for path, x in leaves.items()} == names.shapes(table)
    for path, x in leaves.items():
        name = "/".join(path)
        rules = [ending for ending, _ in PARAMETERS if re.search(rf"(^|/){ending}$", name)]
        assert len(rules) == 1, name
        parameter_spec(name, x.shape, dict.fromkeys(AXES, 2))


def test_dense_layers_can_be_trained(embedder):
    """They are initialised in PyTorch's range, and every parameter has a gradient."""
    module, params = embedder
    kernel = params["dense_0"]["linear"]["kernel"]
    assert 0.9 / 8 < np.abs(kernel).max() <= 1 / 8 and kernel.shape == (64, 20)

    @jax.jit
    def gradient(params):
        weights = jnp.arange(20.0)
        return jax.grad(lambda p: (module.apply({"params": p}, *ROWS) @ weights).sum())(params)

    for name in ("dense_0", "layer_norm_0", "dense_1"):
        for path, x in names.flatten(gradient(params)[name]).items():
            assert np.isfinite(x).all() and np.abs(x).max() > 0, path


def test_the_steps_equal_their_definition(embedder):
    module, params = embedder
    hidden = np.random.default_rng(0).standard_normal((2, 10, 32)).astype(np.float32)
    bound = module.bind({"params": params})
    vectors = bound.vectors(jnp.asarray(hidden), ROWS.segment_ids, 3)
    x = np.concatenate([hidden[0, :5].mean(0), hidden[0, 0]])
    first = params["dense_0"]
    y = np.tanh(x @ first["linear"]["kernel"] + first["linear"]["bias"])
    y = y + x @ first["residual"]["kernel"]
    y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)  # the scale is 1 and the bias 0
    y = np.tanh(y @ params["dense_1"]["linear"]["kernel"])
    np.testing.assert_allclose(vectors[0, 0], y / np.linalg.norm(y), atol=1e-5)
    assert vectors.shape == (2, 3, 20) and not np.any(vectors[1, 1])
    raw = bound.vectors(jnp.asarray(hidden), ROWS.segment_ids, 3, normalize=False)
    np.testing.assert_allclose(raw[0, 0], y, atol=1e-5)


NAMES = (
    "dense",
    "colbert_plain",
    "reranker",
    "choice",
    "span",
    "causal_lm",
    "cls",
    "sparse_native",
)


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


def test_vectors_are_cut_before_they_are_normalised(bert, monkeypatch):
    model = bert["dense"]
    whole = model.encode(models.TEXTS)
    cut = dataclasses.replace(model.pipeline, truncate_dim=8)
    monkeypatch.setattr(model, "text_model", dataclasses.replace(model.text_model, pipeline=cut))
    np.testing.assert_array_equal(model.encode(models.TEXTS), whole[:, :8])
    unit = whole[:, :8] / np.linalg.norm(whole[:, :8], axis=-1, keepdims=True)
    np.testing.assert_allclose(model.encode(models.TEXTS, normalize=True), unit, atol=1e-6)
    assert model.encode(models.TEXTS, pooling="mean", prompt="").shape == (4, 32)


def test_prompts(bert):
    model, texts = bert["cls"], models.TEXTS
    by_default, named = model.encode(texts), model.encode(texts, prompt_name="query")
    np.testing.assert_array_equal(by_default, named)
    explicit = model.encode(["query: " + t for t in texts], prompt="")
    np.testing.assert_array_equal(by_default, explicit)
    assert np.abs(model.encode(texts, prompt_name="document") - named).max() > 1e-3
    assert np.abs(model.encode(texts, prompt="") - named).max() > 1e-3


def test_sparse_vectors(bert):
    """Their largest weights, prompts, a stream, and what is refused."""
    model, texts = bert["sparse_native"], models.TEXTS
    whole = model.sparse(texts, max_active_dims=model.config.vocab_size)
    some, named = model.sparse(texts), model.sparse(texts, prompt_name="query", max_active_dims=5)
    assert [len(x.indices) for x in some] == [30] * 4  # the model's own number
    assert [len(x.values) for x in named] == [5] * 4
    for largest, vector in zip(some, whole, strict=True):
        assert len(vector.indices) > 30 and (np.diff(largest.indices) > 0).all()
        wanted = np.sort(vector.values)[-30:]
        np.testing.assert_allclose(np.sort(largest.values), wanted, atol=1e-5)
    explicit = model.sparse(["query: " + text for text in texts], 5)
    streamed = list(model.sparse(iter(texts), 5, prompt="query: ", stream=True))
    for a, b, c in zip(named, explicit, streamed, strict=True):
        np.testing.assert_array_equal(a.indices, b.indices)
        np.testing.assert_array_equal(a.indices, c.indices)
    assert model.sparse([]) == []
    for call, message in (
        (lambda: model.sparse(texts, 0), "max_active_dims is 0; it must be 1 to 384"),
        (lambda: model.sparse(texts, 385), "max_active_dims is 385; it must be 1 to 384"),
        (lambda: model.sparse(texts, prompt_name="web"), "prompt_name is 'web'"),
        (lambda: model.sparse("hello"), "texts is a string"),
        (lambda: model.encode(texts), "use sparse"),
        (lambda: bert["dense"].sparse(texts), "not a sparse one; use encode"),
    ):
        with pytest.raises(UserError, match=message):
            call()


def test_choices_and_spans(bert):
    predictions = bert["choice"].predict([("hello", ["a", "b c"]), ("who", ["x", "y", "z"])])
    assert [len(x) for x in predictions] == [2, 3]
    alone = bert["choice"].predict([("who", ["y"])])
    np.testing.assert_allclose(predictions[1][1], alone[0][0], atol=1e-5)
    assert bert["choice"].predict([]) == []
    (scores,) = bert["span"].predict([("who?", "hello there")])
    (ids,) = bert["span"].tokenizer.encode_pairs([("who?", "hello there")])
    assert scores.shape == (len(ids), 2)


def test_prompts_of_a_reranker(tmp_path):
    """They precede the first text of each pair, and the default one applies by itself."""
    source = models.write("reranker_prompt", tmp_path / "a")
    model = ModernBert(convert.load(source), attention="dense")
    scores = model.predict(models.PAIRS)
    np.testing.assert_array_equal(scores, model.predict(models.PAIRS, prompt_name="web"))
    with pytest.raises(UserError, match="prompt_name is 'net'"):
        model.predict(models.PAIRS, prompt_name="net")
    assert model.predict([]).shape == (0,)


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


def test_the_module_of_an_embedding_model_takes_its_parameters(bert):
    model = bert["dense"]
    ids = model.tokenizer.encode(models.TEXTS[:1])[0]
    rows = (np.array([ids]), np.ones((1, len(ids)), np.int32), np.arange(len(ids))[None])
    vector = model.module.apply({"params": model.params}, *rows, segments=1)
    np.testing.assert_allclose(vector[0], model.encode(models.TEXTS[:1]), atol=1e-5)


def test_similarity_is_the_model_s_own(bert):
    model, late = bert["dense"], bert["colbert_plain"]
    a, b = model.encode(models.QUERIES), model.encode(models.TEXTS)
    scores = model.similarity(a, b)
    assert scores.shape == (len(a), len(b)) and scores.dtype == np.float32
    np.testing.assert_allclose(scores, model.similarity(3 * a, b), atol=1e-6)
    queries, documents = late.encode_tokens(models.QUERIES, is_query=True), [np.eye(4, 8)]
    tokens = late.encode_tokens(models.TEXTS)
    best = sum((tokens[1] @ vector).max() for vector in queries[2])
    assert late.similarity(queries, tokens)[2, 1] == pytest.approx(best, rel=1e-5)
    assert late.similarity(documents, documents)[0, 0] == 4


def test_documents_are_pooled_on_request(bert):
    late = bert["colbert_plain"]
    whole, pooled = (late.encode_tokens(models.TEXTS, pool_factor=f) for f in (None, 2))
    for a, b in zip(whole, pooled, strict=True):
        np.testing.assert_allclose(b, pool_tokens(a, TokenPooling(factor=2)), atol=1e-5)
    assert len(pooled[3]) == 1 + (len(whole[3]) - 1) // 2
    query = late.encode_tokens(models.QUERIES[:1], is_query=True, pool_factor=2)
    assert len(query[0]) == len(late.encode_tokens(models.QUERIES[:1], is_query=True)[0])
    with pytest.raises(UserError, match="the factor of token pooling"):
        late.encode_tokens(["a"], pool_factor=0.5)


def test_streams_of_texts(bert):
    """A generator is read lazily; its results are those of a list."""
    model, late, read = bert["dense"], bert["colbert_plain"], 0
    texts = [f"{text} {number}" for number in range(40) for text in models.TEXTS]

    def endless():
        nonlocal read
        while True:
            for text in texts:
                read += 1
                yield text

    vectors = model.encode(endless(), batch_tokens=128, stream=True)
    first = np.stack([vector for vector, _ in zip(vectors, texts, strict=False)])
    np.testing.assert_allclose(first, model.encode(texts, batch_tokens=128), atol=1e-5)
    assert read < 2000
    tokens = late.encode_tokens(iter(texts[:9]), stream=True)
    for a, b in zip(tokens, late.encode_tokens(texts[:9]), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    with pytest.raises(UserError, match="texts is a string"):
        model.encode("text", stream=True)


def test_saving_keeps_the_modules(bert, tmp_path):
    bert["dense"].save_pretrained(tmp_path / "saved")
    assert convert.load(tmp_path / "saved").pipeline == bert["dense"].pipeline
    plain = hf_directory.write(tmp_path / "plain")
    assert ModernBert.from_pretrained(plain).pipeline is None

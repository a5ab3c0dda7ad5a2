"""Sparse vectors: pooled scores with their gradients, and documents alone and packed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from modernbert_jax import devices, splade
from modernbert_jax.config import Runtime
from modernbert_jax.heads import MaskedLM
from modernbert_jax.inference.runner import BatchRunner, Document
from modernbert_jax.pipeline import Pipeline, SpladePooling

V, D = 300, 8
"""More than two blocks of 128 ids, the last of which repeats some."""
LENGTHS = [[5, 1, 3], [9]]
POOLINGS = [
    SpladePooling(strategy=s, activation=a)
    for s, a in (("max", "relu"), ("max", "log1p_relu"), ("sum", "log1p_relu"))
]


def inputs():
    """Features with two tokens of one document that are the same, a table and a bias."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 10, D)).astype(np.float32)
    x[0, 3] = x[0, 1]
    table, bias = rng.normal(size=(V, D)), rng.normal(size=V) - 1
    return x, table.astype(np.float32), bias.astype(np.float32)


def expected(pooling, x, table, bias):
    """Vectors of documents [B, S, V], by a loop; of equal scores the first gets the gradient."""
    activate = lambda y: jnp.log1p(jax.nn.relu(y))  # noqa: E731
    if pooling.activation == "log1p_relu":
        once = activate
        activate = lambda y: jnp.log1p(once(y))  # noqa: E731
    rows = []
    for row, lengths in zip(x, LENGTHS, strict=True):
        vectors, start = [], 0
        for length in lengths:
            weights = activate(row[start : start + length] @ table.T + bias)
            if pooling.strategy == "sum":
                vectors.append(weights.sum(0))
            else:
                vectors.append(jnp.take_along_axis(weights, weights.argmax(0)[None], 0)[0])
            start += length
        rows.append(jnp.stack([*vectors, *[jnp.zeros(V)] * (4 - len(vectors))]))
    return jnp.stack(rows)


@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_values_and_gradients_in_blocks_equal_those_of_a_loop(pooling, monkeypatch):
    monkeypatch.setattr(splade, "BLOCK", 1)
    segments = tiny.segments(LENGTHS, 10)
    weights = np.random.default_rng(1).normal(size=(2, 4, V)).astype(np.float32)

    def loss(compute, *arrays):
        vectors = compute(*arrays)
        return (vectors * weights).sum(), vectors

    def ours(x, table, bias):
        return splade.pooled_scores(x, table, bias, segments, 4, pooling)

    (_, vectors), grads = jax.jit(
        jax.value_and_grad(functools.partial(loss, ours), (0, 1, 2), True)
    )(*inputs())
    plain = functools.partial(expected, pooling)
    (_, wanted), oracle = jax.value_and_grad(functools.partial(loss, plain), (0, 1, 2), True)(
        *inputs()
    )
    np.testing.assert_allclose(vectors, wanted, atol=1e-5)
    assert 0.05 < (np.asarray(vectors) == 0).mean() < 0.95
    for own, other in zip(grads, oracle, strict=True):
        np.testing.assert_allclose(own, other, atol=1e-4)
        assert np.abs(own).max() > 0.1


def test_no_array_holds_the_scores_of_all_tokens():
    """Of 8,192 tokens and 50,368 ids: 1.65 GB in float32. Compiled, not run."""
    shapes = [(16, 512, 64), (50_368, 64), (50_368,)]
    x, table, bias = (jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes)
    segments = jax.ShapeDtypeStruct((16, 512), np.int32)

    def total(x, table, bias, segments):
        return splade.pooled_scores(x, table, bias, segments, 4, SpladePooling()).sum()

    for compute in (total, jax.grad(total, (0, 1, 2))):
        memory = jax.jit(compute).lower(x, table, bias, segments).compile().memory_analysis()
        assert memory.temp_size_in_bytes < 0.35e9, memory.temp_size_in_bytes


def test_the_largest_weights():
    vector = jnp.asarray([0.0, 2.0, 0.5, 2.0, 1.0])
    whole = splade.sparse(np.asarray(vector))
    assert whole.indices.tolist() == [1, 2, 3, 4] and whole.values.tolist() == [2, 0.5, 2, 1]
    some = splade.sparse(np.asarray(splade.largest(vector, 3)))
    assert some.indices.tolist() == [1, 3, 4] and some.values.tolist() == [2, 2, 1]
    assert some.indices.dtype == np.int32
    zeros = splade.sparse(np.asarray(splade.largest(jnp.zeros(4), 2)))
    assert zeros.indices.shape == zeros.values.shape == (0,)


CONFIG = tiny.config(num_hidden_layers=1, vocab_size=160)


@pytest.fixture(scope="module")
def params():
    rows = tiny.rows([[8]], 8)
    return tiny.randomised(
        jax.eval_shape(MaskedLM(CONFIG).init, jax.random.key(0), *rows)["params"]
    )


def test_the_module_has_the_parameters_of_a_masked_lm(params):
    for tied in (True, False):
        config = tiny.config(num_hidden_layers=1, tie_word_embeddings=tied, decoder_bias=tied)
        rows = tiny.rows([[5, 3], [6]], 8)
        trees = [
            jax.eval_shape(module(config).init, jax.random.key(0), *rows)["params"]
            for module in (MaskedLM, splade.SparseEncoder)
        ]
        assert jax.tree.all(jax.tree.map(lambda a, b: a.shape == b.shape, *trees))
    drawn = tiny.randomised(trees[0])
    encoder = splade.SparseEncoder(config)
    vectors = jax.jit(functools.partial(encoder.apply, segments=2))({"params": drawn}, *rows)
    logits = jax.jit(MaskedLM(config).apply)({"params": drawn}, *rows)
    np.testing.assert_allclose(
        vectors[0, 1], np.log1p(np.maximum(logits[0, 5:].max(0), 0)), atol=1e-5
    )


def runner(mesh):
    pipeline = Pipeline(kind="sparse", steps=(SpladePooling(),))
    return BatchRunner(CONFIG, Runtime(), "masked_lm", 0, pipeline, mesh)


def documents():
    rng = np.random.default_rng(3)
    lengths = [5, 0, 60, 3, 9, 130, 4]
    return [Document(rng.integers(0, CONFIG.vocab_size, n).tolist()) for n in lengths]


def dense(vectors):
    whole = np.zeros((len(vectors), CONFIG.vocab_size), np.float32)
    for row, (indices, values) in zip(whole, vectors, strict=True):
        row[indices] = values
    return whole


def test_packed_equals_alone_and_the_definition(params):
    own = runner(devices.local_mesh())
    vectors = own.run("sparse", params, documents(), 256, count=None)
    logits = own.run("logits", params, documents(), 256)
    wanted = np.log1p(np.maximum([x.max(0, initial=0) for x in logits], 0))
    np.testing.assert_allclose(dense(vectors), wanted, atol=1e-5)
    assert len(vectors[1].indices) == 0
    (alone,) = own.run("sparse", params, documents()[4:5], count=None)
    np.testing.assert_allclose(dense([alone])[0], wanted[4], atol=1e-5)
    few = own.run("sparse", params, documents(), 256, count=7)
    for some, whole in zip(few, vectors, strict=True):
        assert len(some.indices) == min(7, len(whole.indices))
        assert some.values.sum() == pytest.approx(np.sort(whole.values)[-7:].sum(), abs=1e-4)

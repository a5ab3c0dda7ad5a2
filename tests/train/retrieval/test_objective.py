"""The loss of a batch: packed = alone, many microbatches = one, sharded = single."""

import dataclasses
import functools

import jax
import numpy as np
import pairs
import pytest

from modernbert_jax.embedder import Embedder
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.train.engine.gradients import gradients as engine_gradients
from modernbert_jax.train.retrieval import losses
from modernbert_jax.train.retrieval.config import LossConfig
from modernbert_jax.train.retrieval.objective import DatasetLoss, WholeBatch

CONFIG = pairs.config()
EXAMPLES = pairs.records(7, negatives=2)
EXAMPLES[3].pop("negative_1")  # an example with fewer negatives
ALL = pairs.members(*range(7))  # of the 8 that a batch may have
ONE = Shape(rows=4, length=128, documents=16)
MANY = Shape(rows=1, length=64, documents=4, microbatches=24)
ALONE = Shape(rows=1, length=64, documents=1, microbatches=28)


@functools.partial(jax.jit, static_argnums=0)
def gradients(objective, params, batch):
    microbatches = objective.microbatches(batch, jax.random.key(1))
    return engine_gradients(objective, lambda p: p, params, microbatches)


def computed(shape, config=CONFIG, at_once=False):
    """Loss and gradients of the whole batch in a shape."""
    objective, params = pairs.objective(config, shape)
    batch = pairs.batches(config, EXAMPLES, shape).of(ALL, at_once)
    sums, grads = gradients(objective, params, batch)
    return float(sums.loss), jax.tree.map(np.asarray, grads), batch


@pytest.fixture(scope="module")
def whole():
    return computed(ONE, at_once=True)


def assert_same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * max(float(np.abs(y).max()), 1e-2))


@pytest.mark.parametrize("shape", [MANY, pytest.param(ALONE, marks=pytest.mark.slow)])
def test_the_loss_does_not_depend_on_packing_and_microbatches(shape, whole):
    """Dropout, prompts, a short batch and a learned scale included."""
    loss, grads, batch = computed(shape)
    assert int(batch.used) > 3 and whole[2].documents.shape[0] == 1
    assert loss == pytest.approx(whole[0], rel=1e-5)
    assert abs(float(grads["log_scale"])) > 1e-3
    assert_same(grads, whole[1])


def test_vectors_of_packed_texts_are_those_of_texts_alone():
    """With prompts left out of the pooling; and the loss is that of the vectors."""
    objective, params = pairs.objective(CONFIG, MANY)
    made = pairs.batches(CONFIG, EXAMPLES, MANY)
    vectors, loss = jax.jit(objective.evaluated)(params, made.of(ALL))
    assert vectors.shape[:2] == (4, 8) and not np.asarray(vectors[:, 7]).any()
    texts = made.sets[0]
    rows = np.zeros((3, len(texts.tokens), 64), np.int32)
    for number in range(len(texts.tokens)):
        ids = texts.tokens[number]
        rows[:, number, : len(ids)] = ids, np.ones(len(ids)), np.arange(len(ids))
    embedder = Embedder(objective.model, steps=objective.steps_after)
    rest = {name: x for name, x in params.items() if name != "log_scale"}
    embed = jax.jit(functools.partial(embedder.apply, segments=1))
    alone = np.asarray(embed({"params": rest}, *rows, skip=texts.start[:, None]))[:, 0]
    columns = np.zeros(vectors.shape, np.float32)
    columns[:, :7] = np.where(
        (texts.sequences >= 0)[..., None], alone[texts.sequences], 0
    ).swapaxes(0, 1)
    np.testing.assert_allclose(vectors, columns, atol=2e-5)
    mask = (texts.sequences.T >= 0)[1:]
    wanted = losses.multiple_negatives_ranking(columns[0, :7], columns[1:, :7], mask=mask)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-5)
    assert texts.start.min() > 0 and len({*texts.start.tolist()}) == 2


def test_the_loss_has_its_options_targets_and_guide():
    """Of outputs in any order, without running a model."""
    shape = Shape(rows=2, length=8, documents=4)
    vectors = np.random.default_rng(0).standard_normal((3, 4, 16)).astype(np.float32)
    guide = np.random.default_rng(1).standard_normal((3, 4, 2)).astype(np.float32)
    numbers = np.random.default_rng(2).permutation(16).reshape(1, 2, 8)  # of 12; the rest is none
    flat = np.concatenate([vectors.reshape(12, 16), np.full((4, 16), np.nan, np.float32)])
    whole = WholeBatch(
        documents=numbers,
        valid=np.array([True, True, True, False]),
        present=np.ones((3, 4), bool),
        targets=np.array([[1, 0.5], [0, 3], [2, 1], [9, 9]], np.float32),
        guide=guide,
        key=jax.random.key(0),
    )
    query, documents = vectors[0, :3], vectors[1:, :3]

    def nested(query, documents):
        return sum(
            losses.multiple_negatives_ranking(
                query[:, :n], documents[..., :n], directions=("query_to_doc", "doc_to_query")
            )
            for n in (16, 4)
        )

    guided = {"margin": 0.3, "margin_strategy": "relative"}
    for name, options, function in (
        ("margin-mse", {}, functools.partial(losses.margin_mse, targets=whole.targets[:3])),
        ("gist", guided, functools.partial(losses.gist, guide=guide[:, :3], **guided)),
        ("multiple-negatives-ranking", {"directions": ("query_to_doc", "doc_to_query")}, nested),
    ):
        changes = {"guide": "model"} if name == "gist" else {}
        changes |= {"matryoshka_dims": (16, 4)} if function is nested else {}
        config = pairs.config(loss=LossConfig(name=name, **options), **changes)
        objective = pairs.objective_of(config, shape)
        sums, wanted = jax.jit(
            lambda flat, o=objective, f=function: (
                o.loss({}, flat[numbers], whole),
                f(query, documents),
            )
        )(flat)
        assert float(sums.count) == 3
        assert float(sums.loss) == pytest.approx(3 * float(wanted), rel=1e-5), name


def test_a_batch_has_the_loss_of_its_data_set():
    """And of the columns and targets that its data sets have; the scale of `loss` is learned."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, 4, 8)).astype(np.float32)
    numbers = np.arange(12).reshape(1, 3, 4)
    whole = WholeBatch(
        documents=numbers,
        valid=np.ones(4, bool),
        present=np.ones((3, 4), bool),
        targets=np.array([[1, 5], [0, 5], [2, 5], [1, 5]], np.float32),
        guide=np.zeros((3, 4, 0), np.float32),
        key=jax.random.key(0),
    )
    config = pairs.config(losses={"labels": LossConfig(name="cosent", scale=3.0)})
    sizes = {"labels": (2, 1), "others": (3, 0)}
    made = tuple(
        DatasetLoss(own.loss("embedding"), own, *sizes[name])
        for name in sizes
        for own in [config.loss_of(name)]
    )
    objective = dataclasses.replace(pairs.objective_of(config, ONE), losses=made)
    params = {"log_scale": np.log(np.float32(7.0))}
    compute = jax.jit(
        lambda loss: objective.loss(params, vectors.reshape(1, 3, 4, 8), whole._replace(loss=loss))
    )
    query, first, _ = vectors
    wanted = [
        losses.cosent(query, first, whole.targets[:, 0], scale=3.0),
        losses.multiple_negatives_ranking(query, vectors[1:], scale=7.0),
    ]
    found = [compute(np.int32(number)).loss for number in range(2)]
    np.testing.assert_allclose(found, 4 * np.array(wanted), rtol=1e-5)
    assert compute._cache_size() == 1  # one program has all losses

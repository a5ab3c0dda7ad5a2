"""Packing: logits, losses and gradients of packed examples equal those of separate ones."""

import dataclasses

import corpus
import jax
import jax.numpy as jnp
import labelled
import numpy as np
import pytest

from modernbert_jax.inference import shapes
from modernbert_jax.inference.shapes import Shape
from modernbert_jax.train.engine.gradients import gradients as engine_gradients
from modernbert_jax.train.finetune import batches, losses
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.finetune.infer import outputs
from modernbert_jax.train.finetune.objective import TaskObjective
from modernbert_jax.train.tasks import TASKS, Record, Records

SHAPE = Shape(rows=3, length=128, documents=8, microbatches=13)
POOLING = {"classification": "cls", "multilabel": "mean", "regression": "max"}


@pytest.fixture(scope="module")
def tokenizer():
    return corpus.make_tokenizer()


def examples_of(kind, tokenizer, count=9):
    records = labelled.RECORDS[kind](count, seed=3)
    records = Records([Record(f"f:{i}", r) for i, r in enumerate(records)])
    small = {"max_length": 40}
    small |= {"stride": 8} if kind in ("questions", "tokens") else {}
    task = TASKS[kind](**small).with_labels(records)
    return task, task.examples(records, tokenizer)


def objective_of(task):
    model = labelled.model(num_hidden_layers=1, classifier_pooling=POOLING.get(task.kind, "mean"))
    config = FinetuneConfig(task=task)
    weights = (0.5, 2.0, 1.5)[: task.outputs] if task.kind in ("classification", "tokens") else ()
    loss = losses.of_task(task, SHAPE.documents, 0.1 if weights else 0.0, weights)
    objective = TaskObjective(config, model, task.outputs, loss, SHAPE.documents)
    params = jax.jit(objective.init)(jax.random.key(0))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: x + 0.2 * rng.standard_normal(x.shape, np.float32), params)
    return objective, params


def gradients(objective, params, batch, key):
    """Return the sum of losses and its gradients, over all microbatches."""
    return engine_gradients(objective, lambda p: p, params, objective.microbatches(batch, key))


def alone(examples, grouped):
    """Lay out every sequence in its own row; a microbatch is an example or one of its sequences."""
    layout = []
    for i, example in enumerate(examples):
        rows = [[(i, j)] for j in range(len(example.sequences))]
        layout += [rows] if grouped else [[row] for row in rows]
    return layout


def log_softmax(x):
    x = np.asarray(x, np.float64)
    return x - x.max(-1, keepdims=True) - np.log(np.exp(x - x.max(-1, keepdims=True)).sum(-1))


def expected_loss(task, examples, predictions, weights):
    """Compute the loss by its definition, example by example, in float64."""
    losses, counts = [], []

    def cross_entropy(logits, target):
        p = -log_softmax(logits)
        smooth = 0.9 * np.eye(len(logits))[target] + 0.1 / len(logits)
        losses.append((smooth * p * weights).sum())
        counts.append(weights[target])

    for example, logits in zip(examples, predictions, strict=True):
        y = example.target
        if task.kind == "classification":
            cross_entropy(logits[0], y)
        elif task.kind == "tokens":
            for of_sequence, targets in zip(logits, y, strict=True):
                for x, t in zip(of_sequence, targets, strict=True):
                    if t >= 0:
                        cross_entropy(x, t)
        elif task.kind == "multilabel":
            p = 1 / (1 + np.exp(-np.float64(logits[0])))
            losses.append(-np.where(y > 0, np.log(p), np.log1p(-p)).mean())
            counts.append(1)
        elif task.kind == "regression":
            losses.append((np.float64(logits[0][0]) - y) ** 2)
            counts.append(1)
        elif task.kind == "questions":
            for x, (first, last) in zip(logits, y, strict=True):
                both = log_softmax(x[:, 0])[first] + log_softmax(x[:, 1])[last]
                losses.append(-both / 2)
                counts.append(1)
        else:
            losses.append(-log_softmax(np.concatenate(logits))[y])
            counts.append(1)
    return np.sum(losses) / np.sum(counts)


@pytest.mark.parametrize(
    "kind",
    [
        kind
        if kind in ("classification", "tokens", "choice")
        else pytest.param(kind, marks=pytest.mark.slow)
        for kind in labelled.RECORDS
    ],
)
def test_packed_examples_equal_separate_ones(kind, tokenizer):
    task, examples = examples_of(kind, tokenizer)
    objective, params = objective_of(task)
    still = dataclasses.replace(objective.config, attention_dropout=0.0)
    objective = dataclasses.replace(objective, config=still)
    of, lengths = objective.task_loss, batches.lengths_of(examples)
    summed = jax.jit(lambda p, batch: gradients(objective, p, batch, jax.random.key(0)))
    forward = jax.jit(objective.predict)
    layouts = {
        "packed": shapes.arrange(lengths, SHAPE, of.grouped),
        "alone": alone(examples, of.grouped),
    }
    assert len(layouts["packed"]) < len(layouts["alone"]) <= SHAPE.microbatches
    results = {}
    for name, layout in layouts.items():
        parts = [batches.fill(examples, rows, SHAPE, of) for rows in layout]
        sums, grads = summed(params, batches.stack(parts, SHAPE, of))
        predictions = outputs(
            lambda batch: forward(params, batch),
            zip(parts, layout, strict=True),
            examples,
            of.level,
        )
        assert predictions.loss == pytest.approx(float(sums.loss / sums.count), rel=1e-5)
        grads = jax.tree.map(lambda g, n=sums.count: np.asarray(g / n), grads)
        results[name] = predictions, grads
    (packed, grads), (single, wanted) = results["packed"], results["alone"]
    weights = np.array(getattr(of, "class_weights", ()) or (1.0,))
    loss = expected_loss(task, examples, single.outputs, weights)
    assert packed.loss == pytest.approx(loss, rel=1e-5)
    assert single.loss == pytest.approx(loss, rel=1e-5)
    for a, b, example in zip(packed.outputs, single.outputs, examples, strict=True):
        for x, y, ids in zip(a, b, example.sequences, strict=True):
            assert x.shape == ((len(ids),) if of.level == "token" else ()) + (task.outputs,)
            np.testing.assert_allclose(x, y, atol=2e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(np.abs(b).max(), 1e-3))


@pytest.mark.parametrize("kind", ["classification", "tokens"])
def test_dropout_does_not_depend_on_the_layout(kind, tokenizer):
    """Dropout of a document does not depend on the rest of its row and microbatch."""
    task, examples = examples_of(kind, tokenizer)
    objective, params = objective_of(task)
    rates = dict.fromkeys(("attention", "classifier", "mlp", "embedding"), 0.3)
    rates = {f"{name}_dropout": rate for name, rate in rates.items()}
    config = dataclasses.replace(objective.config, **rates)
    objective = dataclasses.replace(objective, config=config)
    of, lengths = objective.task_loss, batches.lengths_of(examples)
    summed = jax.jit(lambda batch, seed: gradients(objective, params, batch, jax.random.key(seed)))
    packed, single = (
        batches.stack([batches.fill(examples, rows, SHAPE, of) for rows in layout], SHAPE, of)
        for layout in (shapes.arrange(lengths, SHAPE), alone(examples, grouped=False))
    )
    (sums, grads), (wanted, wanted_grads) = summed(packed, 0), summed(single, 0)
    loss, other = float(sums.loss), float(summed(packed, 1)[0].loss)
    assert loss == pytest.approx(float(wanted.loss), rel=1e-5)
    assert abs(loss - other) > 1e-3 * loss
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted_grads), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * max(np.abs(b).max(), 1e-3))


def test_an_empty_batch_has_no_nan(tokenizer):
    """Places without documents do not affect gradients."""
    logits = {"document": (2, 4, 3), "token": (2, 16, 2)}
    for kind in labelled.RECORDS:
        task, _ = examples_of(kind, tokenizer, 4)
        of = losses.of_task(task, 4)
        places = 4 if of.level == "document" else 16
        targets, weights = of.empty(2, places), np.zeros((2, places), np.float32)
        shape = (*logits[of.level][:2], max(task.outputs, 2))

        def loss(x, of=of, targets=targets, weights=weights, outputs=task.outputs):
            sums = of.sums(x[..., :outputs], targets, weights, jnp.zeros((2, 16), jnp.int32))
            return sums.loss + sums.count

        value, grad = jax.value_and_grad(loss)(jnp.ones(shape))
        assert value == 0 and not np.asarray(grad).any()


@pytest.mark.parametrize("grouped", [False, True])
def test_every_sequence_has_one_place(grouped):
    rng = np.random.default_rng(0)
    lengths = [rng.integers(2, 60, rng.integers(1, 4)).tolist() for _ in range(300)]
    shape = shapes.choose(lengths, 32, 512, grouped=grouped)
    assert shape.tokens <= 512 and shape.length >= 59
    layout = shapes.arrange(lengths, shape, grouped)
    places = [place for rows in layout for row in rows for place in row]
    wanted = [(i, j) for i, of_one in enumerate(lengths) for j in range(len(of_one))]
    assert sorted(places) == wanted
    for rows in layout:
        assert len(rows) <= shape.rows
        for row in rows:
            assert len(row) <= shape.documents
            assert sum(lengths[i][j] for i, j in row) <= shape.length
    if grouped:
        where = [{m for m, rows in enumerate(layout) for row in rows for i, _ in row if i == k}
                 for k in range(300)]  # fmt: skip
        assert all(len(numbers) == 1 for numbers in where)


def test_no_batch_exceeds_the_number_of_microbatches():
    """The bound holds for the longest examples together, and for lengths that pack badly."""
    rng = np.random.default_rng(0)
    for trial in range(30):
        high = int(rng.integers(9, 400))
        lengths = [
            rng.integers(max(2, high // 2), high, rng.integers(1, 4)).tolist() for _ in range(60)
        ]
        grouped = bool(trial % 2)
        shape = shapes.choose(lengths, 16, 1024, grouped=grouped)
        longest = sorted(lengths, key=sum, reverse=True)[:16]
        most = sorted(lengths, key=len, reverse=True)[:16]
        for chosen in (longest, most, lengths[:16]):
            assert len(shapes.arrange(chosen, shape, grouped)) <= shape.microbatches


def test_rows_and_tokens_divide_among_devices():
    shape = shapes.choose([[30]] * 50, 16, 10_000, pieces=(4, 2))
    assert shape.rows % 4 == 0 and shape.length % 2 == 0


def test_two_passes_are_avoided_where_they_cost_more(monkeypatch):
    """Accelerators hold a whole batch in one microbatch; a CPU takes the rows that are fullest."""
    rng = np.random.default_rng(0)
    lengths = [
        np.exp(rng.normal(4.8, 0.8, 2)).astype(int).clip(16, 512).tolist() for _ in range(500)
    ]

    def chosen(platform):
        monkeypatch.setattr(shapes, "device", lambda: (platform, ""))
        return shapes.choose(lengths, 32, 16_384, coupled=True)

    cpu, gpu = chosen("cpu"), chosen("gpu")
    mean = 32 * sum(map(sum, lengths)) / len(lengths)
    assert cpu.tokens < mean / 4 and mean < gpu.tokens <= 16_384


def test_batches_follow_from_seed_and_step(tokenizer):
    task, examples = examples_of("classification", tokenizer, 20)
    of, shape = losses.of_task(task, 8), Shape(rows=3, length=128, documents=8, microbatches=3)

    def of_seed(seed):
        return batches.TrainingBatches(examples, 8, seed, shape, of)

    one, other = of_seed(1), of_seed(2)
    assert one.per_epoch == 3 and one.steps(2.5) == 8
    for epoch in range(2):
        seen = np.concatenate([one.members(3 * epoch + k) for k in range(3)])
        assert sorted(seen) == list(range(20))
    assert one.members(5).size == 4 and one.examples_before(5) == 36
    orders = [tuple(b.members(s)) for b in (one, other) for s in (0, 3)]
    assert len(set(orders)) == 4
    again, _ = of_seed(1).at(4)
    for a, b in zip(jax.tree.leaves(one.at(4)[0]), jax.tree.leaves(again), strict=True):
        assert np.array_equal(a, b)

"""Coupled objectives: two passes give what one gives, however the batch is divided and sharded."""

import functools
import inspect
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import contrastive
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from contrastive import Contrastive

from modernbert_jax import UserError
from modernbert_jax.train import engine
from modernbert_jax.train.engine import gradients as engine_gradients
from modernbert_jax.train.engine.metrics import read_rows

CONFIG = tiny.config(num_hidden_layers=1, attention_dropout=0.2, embedding_dropout=0.1)
SCRIPT = Path(__file__).with_name("contrastive_run.py")
TIMES = ("second", "mfu", "memory")


def numbers(folder: Path) -> list[dict]:
    """Everything in the metrics that does not measure time."""
    rows = read_rows(folder / "metrics.jsonl")
    return [{k: v for k, v in r.items() if not any(t in k for t in TIMES)} for r in rows]


def start(folder: Path, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, SCRIPT, folder, json.dumps(options)],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def finish(process: subprocess.Popen) -> None:
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A run that was never stopped, in two microbatches."""
    folder = tmp_path_factory.mktemp("coupled") / "whole"
    finish(start(folder))
    return folder


@pytest.fixture(scope="module")
def params():
    drawn = jax.jit(Contrastive(CONFIG).init)(jax.random.key(0))
    return drawn | {"encoder": tiny.randomised(drawn["encoder"])}


def test_two_passes_are_one(params):
    """Loss and gradients, dropout included, against differentiating the whole at once."""

    @jax.jit
    def at_once(params, batch):
        objective = Contrastive(CONFIG, microbatches_=1)
        microbatches = objective.microbatches(batch, jax.random.key(1))

        def loss(params):
            outputs = objective.forward(params, microbatches.at(0))
            return objective.loss(params, outputs[None], microbatches.stack).loss

        return jax.value_and_grad(loss)(params)

    batch = Contrastive(CONFIG).batch(0)
    loss, grads = at_once(params, batch)
    assert float(jnp.abs(grads["temperature"])) > 1e-3  # the loss has a parameter of its own
    objective = Contrastive(CONFIG, microbatches_=4)

    @jax.jit
    def in_two_passes(params, batch):
        microbatches = objective.microbatches(batch, jax.random.key(1))
        return engine_gradients.gradients(objective, lambda p: p, params, microbatches)

    sums, accumulated = in_two_passes(params, batch)
    assert float(sums.loss) == pytest.approx(float(loss), rel=1e-6)
    for a, b in zip(jax.tree.leaves(accumulated), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6 * max(float(jnp.abs(b).max()), 1e-2))


def test_a_single_microbatch_is_differentiated_at_once(params):
    """One forward pass, the gradients of two passes."""
    passes: list[int] = []

    class Counted(Contrastive):
        def forward(self, params, microbatch):
            passes.append(1)
            return super().forward(params, microbatch)

    def compute(objective, params, batch):
        microbatches = objective.microbatches(batch, jax.random.key(1))
        return engine_gradients.gradients(objective, lambda p: p, params, microbatches)

    objective = Counted(CONFIG, microbatches_=1)
    batch = objective.batch(0)
    sums, grads = jax.jit(functools.partial(compute, objective))(params, batch)
    assert len(passes) == 1
    microbatches = objective.microbatches(batch, jax.random.key(1))
    two = functools.partial(engine_gradients._coupled, objective, lambda p: p)
    want, wanted = jax.jit(two)(params, microbatches)
    assert float(sums.loss) == pytest.approx(float(want.loss), rel=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, atol=3e-6 * max(float(jnp.abs(b).max()), 1e-2))


def test_memory_does_not_grow_with_the_number_of_microbatches(params):
    """Sixteen times the batch in sixteen times the microbatches: only the outputs are added."""

    def temporaries(microbatches: int) -> int:
        objective = Contrastive(CONFIG, microbatches, rows=4 * microbatches)

        def gradients(params, batch):
            pieces = objective.microbatches(batch, jax.random.key(0))
            return engine_gradients.gradients(objective, lambda p: p, params, pieces)

        lowered = jax.jit(gradients).lower(params, objective.batch(0))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    few, many = temporaries(2), temporaries(32)
    outputs = 32 * 4 * 8 * CONFIG.hidden_size * 4
    scores = (32 * 4 * 4) ** 2 * 4
    assert many < few + 6 * outputs + 4 * scores


def test_it_learns(whole):
    rows = [row for row in read_rows(whole / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[-1]["loss"] < 0.8 * rows[0]["loss"]
    assert {"accuracy", "count", "microbatches"} <= rows[0].keys()


def test_killed_it_resumes_bit_for_bit(whole):
    folder = whole.with_name("killed")
    process = start(folder, dies_at=7)
    process.communicate(timeout=600)
    assert process.returncode == -signal.SIGKILL
    finish(start(folder))
    assert numbers(folder) == numbers(whole)


@pytest.mark.parametrize(
    "mesh",
    [
        {"data": 2, "fsdp": 2, "tensor": 2},
        pytest.param({"data": 8}, marks=pytest.mark.slow),
        pytest.param({"fsdp": 2, "tensor": 2, "context": 2}, marks=pytest.mark.slow),
    ],
    ids="-".join,
)
def test_eight_devices_compute_the_same(whole, mesh):
    """The whole batch is the pool of negatives, whatever the mesh."""
    folder = whole.with_name("-".join(mesh))
    finish(start(folder, devices=8, mesh=mesh))
    for a, b in zip(numbers(folder), numbers(whole), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=2e-4)
        assert a["tokens"] == b["tokens"] and a["count"] == b["count"]
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=2e-3)


def test_the_objective_is_short():
    pieces = (contrastive.Pairs, contrastive.Towers, contrastive.Contrastive)
    assert sum(len(inspect.getsource(piece).splitlines()) for piece in pieces) <= 60


def test_another_configuration_is_refused(whole):
    with pytest.raises(UserError, match="learning_rate"):
        engine.train(Contrastive(CONFIG), engine.TrainConfig(output=str(whole), learning_rate=1.0))

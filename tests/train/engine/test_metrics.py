"""Metrics, times and traces that a run writes."""

import json
import sys
import time
import types

import corpus
import numpy as np
import pytest

from modernbert_jax import UserError
from modernbert_jax.train.engine import EngineConfig, Phase, loop, metrics, weights_and_biases
from modernbert_jax.train.engine.metrics import Chronometer, Meter, MetricWriter, read_rows
from modernbert_jax.train.engine.objective import Batch
from modernbert_jax.train.engine.profile import Profiler


def test_values_that_are_not_finite_are_null(tmp_path):
    with MetricWriter(tmp_path, 0) as writer:
        writer.write({"step": 1, "loss": float("nan"), "grad_norm": float("inf"), "mfu": 0.5})
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert rows == [{"step": 1, "loss": None, "grad_norm": None, "mfu": 0.5}]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_damaged_lines_are_set_aside(tmp_path):
    path, messages = tmp_path / "metrics.jsonl", []
    lines = [b'{"step": 1}', b"garbage", b'{"step": 2', b"[3]", b'{"step": "4"}', b"\xff\x00", b""]
    content = b"\n".join([*lines, b'{"step": 5}', b'{"step": 9}', b'{"step": 6'])
    path.write_bytes(content)
    with MetricWriter(tmp_path, 5, say=messages.append) as writer:
        assert writer.rows == [{"step": 1}, {"step": 5}]
        writer.write({"step": 6})
    assert [row["step"] for row in read_rows(path)] == [1, 5, 6]
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == content
    assert len(messages) == 1 and "left out (2, 3, 4, 5, 6 and 1 more)" in messages[0]
    with MetricWriter(tmp_path, 6, say=messages.append):
        assert len(messages) == 1


def test_time_is_counted_once():
    began, chronometer = time.perf_counter(), Chronometer()
    with chronometer.during("save"):
        time.sleep(0.02)
        with chronometer.during("data"):
            time.sleep(0.03)
    seconds = chronometer.read()
    assert seconds["save"] >= 0.02 and seconds["data"] >= 0.03
    assert sum(seconds.values()) == pytest.approx(time.perf_counter() - began, abs=0.01)
    resumed = Chronometer()
    resumed.add(seconds)
    assert resumed.read()["data"] == seconds["data"]


def test_speed_is_that_of_the_steps_that_it_counts(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(metrics, "time", types.SimpleNamespace(perf_counter=lambda: now[0]))
    meter = Meter(0, Chronometer())
    objective = types.SimpleNamespace(flops_per_token=lambda length: None)

    def steps(number):
        for _ in range(number):
            now[0] += 0.5
            meter.finished({"tokens": 10, "pairs": 20.0, "waited": 0.0, "examples": 4})

    steps(3)
    now[0] += 100  # an evaluation between two rows
    meter.restart()
    steps(2)
    for _ in range(2):
        row = meter.read(objective, meter.take())
        assert (row["examples_per_second"], row["tokens_per_second"]) == (8, 20)
        assert row["step_seconds_p50"] == row["step_seconds_max"] == 0.5
        steps(5)


def test_a_step_ends_before_the_next_program_is_compiled():
    events = []
    objective = types.SimpleNamespace(
        name="s",
        stream=lambda step: (Batch(i, {}) for i in range(step, 9)),
        describe=lambda batch: "",
        row=lambda step, counts: {},
        flops_per_token=lambda length: None,
    )
    numbers = dict.fromkeys(("tokens", "pairs", "loss", "learning_rate"), np.float32(1))
    program = types.SimpleNamespace(
        is_compiled=lambda batch: batch.arrays not in (0, 2),
        compile=lambda *_: events.append("compiled"),
        step=lambda state, *_: (state, numbers | {"skipped_in_a_row": np.int32(0)}),
    )
    writer = types.SimpleNamespace(write=lambda row: events.append(row["step"]))
    trainer = loop._Trainer(
        EngineConfig(log_every=1),
        folder=None,
        fixed=None,
        stop=types.SimpleNamespace(reached=lambda step: step == 4),
        checkpoints=None,
        writer=writer,
        progress=types.SimpleNamespace(update=lambda *_: None),
        profiler=Profiler("unused", None),
        meter=Meter(0, Chronometer()),
    )
    trainer._save = lambda *_: None
    phase = Phase(objective, program, None, 0, 9, eval_every=0, save_every=0)
    trainer.train(phase, types.SimpleNamespace(step=0))
    assert events == ["compiled", 1, 2, "compiled", 3, 4]


@pytest.fixture
def wandb(monkeypatch):
    """A fake module that records its calls."""
    fake = types.ModuleType("wandb")
    fake.calls, fake.rows = [], []

    class Run:
        def define_metric(self, name, **how):
            fake.calls.append((name, how))

        def log(self, row):
            fake.rows.append(row)

        def finish(self):
            fake.calls.append("finish")

    def init(**settings):
        fake.calls.append(settings)
        return Run()

    fake.init = init
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def test_weights_and_biases_gets_every_row_and_resumes_its_run(tmp_path, wandb):
    config = corpus.run_config(tmp_path, tmp_path / "data", wandb_project="soup")
    for row in ({"step": 1, "loss": 2.0, "mfu": None}, {"step": 2, "loss": 1.0, "mfu": None}):
        sinks = [weights_and_biases.Board(tmp_path, config)]
        with MetricWriter(tmp_path, row["step"] - 1, sinks) as writer:
            writer.write(row)
    assert wandb.rows == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    first, second = (call for call in wandb.calls if isinstance(call, dict))
    assert first == second and first["project"] == "soup" and first["resume"] == "allow"
    assert first["config"]["seed"] == config.seed and json.dumps(first["config"])
    assert wandb.calls.count("finish") == 2 and ("*", {"step_metric": "step"}) in wandb.calls


def test_missing_weights_and_biases_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = corpus.run_config(tmp_path, tmp_path / "data", wandb_project="soup")
    with pytest.raises(UserError, match=r"install modernbert-jax\[wandb\]"):
        weights_and_biases.Board(tmp_path, config)
    assert not list(tmp_path.iterdir())


def test_the_profiler_traces_the_requested_steps(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr("jax.profiler.start_trace", lambda folder: calls.append(folder))
    monkeypatch.setattr("jax.profiler.stop_trace", lambda: calls.append("stop"))
    with Profiler(tmp_path, Profiler.parse("2:3")) as profiler:
        for number in range(1, 6):
            with profiler.step(number):
                calls.append(number)
            profiler.after(number, ())
    assert calls == [1, str(tmp_path), 2, 3, "stop", 4, 5]
    for wrong in ("3", "3:2", "0:1", "a:b"):
        with pytest.raises(UserError, match="must be A:B"):
            Profiler.parse(wrong)

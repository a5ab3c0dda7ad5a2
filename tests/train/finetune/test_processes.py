"""Fine-tuning in several processes: it equals a single process, also stopped or killed."""

import dataclasses
import json
import os
import signal
from pathlib import Path

import corpus
import labelled
import pytest
from processes import Processes, assert_close, curve, kill_and_resume

from modernbert_jax import convert
from modernbert_jax.io import lock
from modernbert_jax.train.finetune.config import FinetuneConfig
from modernbert_jax.train.tasks import TASKS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The folder of models, data and runs."""
    return tmp_path_factory.mktemp("finetune")


@pytest.fixture(scope="module")
def config(place) -> FinetuneConfig:
    """One layer, 16 steps, a checkpoint at every fourth."""
    labelled.checkpoint(place / "base", corpus.make_tokenizer(), num_hidden_layers=1)
    labelled.write(place / "train.jsonl", labelled.tokens(64))
    labelled.write(place / "dev.jsonl", labelled.tokens(24, 1))
    return FinetuneConfig(
        task=TASKS["tokens"](max_length=64, stride=16),
        model=str(place / "base"),
        train=str(place / "train.jsonl"),
        validation=str(place / "dev.jsonl"),
        learning_rate=4e-3,
        epochs=4,
        batch_examples=16,
        log_every=1,
        save_every=4,
    )


@pytest.fixture(scope="module")
def whole(place, config) -> Path:
    """The run of two processes that was never stopped."""
    with Processes(config, place / "whole", count=2) as both:
        assert both.wait() == [0, 0], both.output()
    assert "finished; the model is in" in both.logs[0].read_text()
    assert "finished" not in both.logs[1].read_text()
    return place / "whole"


def test_two_processes_train_as_one(place, config, whole):
    with Processes(config, place / "alone", count=1) as one:
        assert one.wait() == [0], one.output()
    assert_close(place / "alone", whole, rtol=2e-4)


def test_four_processes_of_two_devices_train_as_one(place, config, whole):
    with Processes(config, place / "four", count=4, devices=2) as four:
        assert four.wait() == [0] * 4, four.output()
    assert_close(place / "four", whole, rtol=2e-4)


def test_a_folder_that_another_holds_is_refused_in_every_process(place, config, whole):
    """And several processes of one run hold it as one, as all tests here show."""
    (place / "held").mkdir()
    with lock.held(place / "held" / ".lock", "held"):
        with Processes(config, place / "held", count=2) as both:
            assert both.wait() == [2, 2], both.output()
        assert all(f"process {os.getpid()} on " in log.read_text() for log in both.logs)


@pytest.mark.parametrize("victims", [(0,), (1,), (0, 1)])
def test_killed_processes_end_and_resume_bit_for_bit(place, config, whole, victims):
    folder = place / f"killed-{len(victims)}-{victims[0]}"
    kill_and_resume(config, folder, 6, victims)
    assert curve(folder) == curve(whole)
    assert convert.verify(folder / "export", whole / "export", tolerance=0.0).equal


def test_asking_one_process_to_stop_stops_both_and_one_can_resume(place, config, whole):
    folder = place / "asked"
    config = dataclasses.replace(config, epochs=200)
    with Processes(config, folder, count=2) as both:
        both.reach(6)
        both.all[1].send_signal(signal.SIGTERM)
        assert both.wait() == [0, 0], both.output()
    assert "stopped, checkpoint saved; run the same" in both.logs[0].read_text()
    stopped = both.reached()
    assert 6 <= stopped < 800
    assert max(int(p.name) for p in (folder / "checkpoints").iterdir()) == stopped
    with Processes(config, folder, count=1) as one:
        one.reach(stopped + 2)
        one.all[0].send_signal(signal.SIGTERM)
        assert one.wait() == [0], one.output()
    assert f"resuming at step {stopped}" in one.output()


def test_processes_sweep_as_one(place, config):
    grid = ("--grid.learning-rate", "1e-3", "4e-3", "--grid.seed", "1", "2")
    config = dataclasses.replace(config, epochs=1)
    tables = []
    for count in (1, 2):
        folder = place / f"sweep-{count}"
        with Processes(config, folder, count, sweep=grid) as some:
            assert some.wait() == [0] * count, some.output()
        tables.append(json.loads((folder / "sweep.json").read_text()))
        best = Path(tables[-1]["best_run"])
        assert [p.parent for p in folder.glob("runs/*/export")] == [best]
    one, two = tables
    assert Path(one["best_run"]).name == Path(two["best_run"]).name
    for a, b in zip(one["settings"], two["settings"], strict=True):
        for name, value in a["best"].items():
            assert b["best"][name]["mean"] == pytest.approx(value["mean"], rel=1e-4), name

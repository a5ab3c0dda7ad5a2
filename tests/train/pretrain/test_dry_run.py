"""Dry runs: hours and steps against those that are on record."""

import dataclasses
import json

import pytest

from modernbert_jax import UserError, cli, configs
from modernbert_jax.train.engine.machine import Machine
from modernbert_jax.train.pretrain import dry_run


def test_base_and_large_take_the_recorded_hours():
    """Hours on 8 x H100: base 194, 39.9 and 11.5 hours; large 425 for its first stage."""
    base = dry_run.plan(configs.load("pretrain", "base"), Machine.named("h100", 8, 0.26))
    hours = [stage["hours"] for stage in base["stages"]]
    assert hours[0] == pytest.approx(194, rel=0.05)
    assert hours[1] == pytest.approx(39.9, rel=0.2) and hours[2] == pytest.approx(11.5, rel=0.3)
    large = dry_run.plan(configs.load("pretrain", "large"), Machine.named("NVIDIA H100", 8, 0.33))
    assert sum(s["hours"] for s in large["stages"][:2]) == pytest.approx(425.3, rel=0.05)
    half = dry_run.plan(configs.load("pretrain", "base"), Machine.named("h100", 16, 0.26))
    assert half["hours"] == pytest.approx(base["hours"] / 2)


def test_steps_are_those_of_the_configurations():
    facts = dry_run.plan(configs.load("pretrain", "base"), Machine.named("v5e", 256, 0.4))
    steps = [stage["steps"] for stage in facts["stages"]]
    full = 1719e9 / (4608 * 1024)
    assert full < steps[0] < full + 12_000  # smaller batches at first
    assert steps[1:] == [round(250e9 / (576 * 8192)), round(50e9 / (576 * 8192))]
    assert facts["steps"] == sum(steps) and facts["hardware"].startswith("TPU v5e")
    first = facts["stages"][0]["batches"]
    assert [b["rows"] for b in first] == [768 * n for n in range(1, 7)]
    assert [b["microbatches"] for b in first] == [1, 2, 3, 4, 5, 6]
    assert [round(b["from_token"] / 1e9, 2) for b in first] == [0, 3.33, 10.0, 20.0, 33.33, 50.0]


def test_a_weight_decay_that_erases_weights_is_warned_of():
    config = configs.load("pretrain", "nano")
    stages = tuple(dataclasses.replace(stage, weight_decay=0.01) for stage in config.stages)
    large = dataclasses.replace(config, stages=stages)
    adamw = dataclasses.replace(large, optimizer="adamw")
    machine = Machine.named("h100", 8, 0.4)
    text, *others = (
        dry_run.text(c, machine, dry_run.plan(c, machine)) for c in (large, config, adamw)
    )
    assert text.count("warning: weight decay 0.01 takes 1% off") == 1
    assert not any("warning" in other for other in others)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("h1000", 8, 0.4), "hardware is 'h1000'; known: NVIDIA A100"), (("h100", 8, 40), "mfu 40")],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Machine.named(*arguments)


def test_the_command_needs_no_data(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["pretrain", "large", "--dry-run", "--output", "run"]) == 0
    output = capsys.readouterr().out
    for fact in ("395,881,664 parameters", "pretrain-slower", "1,344 rows", "one_minus_sqrt"):
        assert fact in output
    assert "tiled from the middle" in output and "8 x NVIDIA H100 at 40% MFU" in output
    assert (tmp_path / "run" / "plan.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.rglob("*")] == ["run", "plan.png"]
    command = ["pretrain", "nano", "--dry-run", "--json", "--plot", "nano.png", "--mfu", "0.5"]
    assert cli.main(command) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["steps"] == 640 and facts["mfu"] == 0.5 and (tmp_path / "nano.png").exists()

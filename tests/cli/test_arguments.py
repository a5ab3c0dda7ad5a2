"""Arguments: configurations from presets and files, and help that is laid out for a user."""

import re
from pathlib import Path

import pytest
from program import refused, run

from modernbert_jax import configs
from modernbert_jax.cli import arguments, other_names, registry
from modernbert_jax.cli.dry_run import DryRun
from modernbert_jax.cli.finetune import Finetune
from modernbert_jax.cli.launch import Launch
from modernbert_jax.cli.pretrain import Pretrain
from modernbert_jax.cli.report import Report


@pytest.fixture
def pretrained(monkeypatch):
    """The arguments of `pretrain.run`: its options and its configuration."""
    calls = []
    monkeypatch.setattr(Pretrain, "run", lambda options, config: calls.append((options, config)))
    return calls


def call(name, *words):
    assert arguments.parse(name, registry.COMMANDS[name], words)() is None


def test_options_fields_and_launch_are_passed_flat(pretrained):
    several = ("--coordinator", "host:1", "--processes", "2", "--process", "1")
    changes = ("--stages.0.tokens", "204800", "--model.num-hidden-layers", "7", "--seed", "3")
    call("pretrain", "nano", "--mfu", "0.5", *changes, *several)
    ((options, config),) = pretrained
    several_hosts = Launch(coordinator="host:1", processes=2, process=1)
    assert options == Pretrain(dry=DryRun(mfu=0.5), launch=several_hosts)
    assert (config.stages[0].tokens, config.model.num_hidden_layers, config.seed) == (204800, 7, 3)


def test_data_sets_are_given_losses_by_name(monkeypatch):
    configs_ = []
    monkeypatch.setattr(Finetune, "run", lambda options, config: configs_.append(config))
    words = ("--losses.my_set.name", "cosent", "--losses.my_set.scale=3", "--loss.scale", "4")
    call("finetune", "embedding", *words)
    (config,) = configs_
    assert (config.loss_of("my_set").name, config.loss_of("my_set").scale) == ("cosent", 3)
    assert config.loss_of("other").scale == 4


def test_a_configuration_comes_from_a_file(pretrained, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("from modernbert_jax.configs import nano\nconfig = nano.config\n")
    call("pretrain", str(file), "--output", "here")
    assert pretrained[0][1].output == "here"


def test_tilde_is_the_home_folder_in_options_and_fields(pretrained, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(Finetune, "run", lambda options, config: pretrained.append(config))
    monkeypatch.setattr(Report, "run", lambda options: pretrained.append(options))
    (tmp_path / "nano.py").write_text("from modernbert_jax.configs.nano import config")
    call("pretrain", "~/nano.py", "--plot=~/p.png", "--data", "~/data", "--output=~/run")
    call("finetune", "rte", "--model=~/m", "--train", "~/*.csv", "--validation", "a~")
    call("report", "~/run", "b", "--output", "~/r")
    (options, pretrain), finetune, report = pretrained
    assert (options.plot, pretrain.data) == (tmp_path / "p.png", f"{tmp_path}/data")
    assert pretrain.output == f"{tmp_path}/run"
    assert (finetune.model, finetune.train) == (f"{tmp_path}/m", f"{tmp_path}/*.csv")
    assert (finetune.validation, finetune.test) == ("a~", "")
    assert report.runs == (tmp_path / "run", Path("b")) and report.output == tmp_path / "r"


@pytest.mark.parametrize(("command", "preset"), [("pretrain", "nano"), ("finetune", "rte")])
def test_help_without_config_lists_the_presets(capsys, command, preset):
    code, out, _ = run(capsys, command, "--help")
    assert code == 0 and re.search(rf"^  {preset} +\w", out, re.MULTILINE)
    assert "--cpu-devices" in out and "--mesh.data" not in out
    code, out, _ = run(capsys, command, preset, "--help")
    assert code == 0 and "--mesh.data" in out and f"modernbert-jax {command} {preset}" in out


def test_help_is_wrapped_by_the_terminal_alone(capsys):
    _, out, _ = run(capsys, "prepare", "--help")
    text = " ".join(line.strip("│ ") for line in out.splitlines())
    assert (
        "MDS folders of text or token ids; or - for JSON lines from standard input. (default: )"
        in text
    )


def test_complaints_are_one_line_without_unicode(capsys, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    assert "--tolerance" in refused(capsys, "verify", "a", "b", "--tolerance", "x")


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (["finetune", "classification", "--lr", "1e-5"], "--learning-rate"),
        (["finetune", "classification", "--per_device_train_batch_size=8"], "--batch-examples"),
        (["finetune", "classification", "--max-length", "64"], "--task.max-length"),
        (["sweep", "rte", "--num-train-epochs", "3"], "--epochs"),
        (["pretrain", "nano", "--learning-rate", "1e-3"], "--stages.0.peak-learning-rate"),
        (["predict", "--batch-size", "8"], "--batch-tokens"),
        (["finetune", "classification", "--learning-rat", "1"], "--learning-rate"),
    ],
)
def test_options_of_other_programs_are_answered_with_ours(capsys, words, ours):
    assert f"did you mean {ours}?" in refused(capsys, *words)


@pytest.mark.parametrize(
    "words", [["finetune", "classification"], ["pretrain", "nano"], ["predict"], ["prepare"]]
)
def test_every_option_that_is_suggested_exists(capsys, words):
    _, help_, _ = run(capsys, *words, "--help")
    for own, others in other_names.TABLES[words[0]].items():
        if own != "task.label-column":  # of other tasks
            assert re.search(rf"--{re.escape(own)}[ ,]", help_), own
        for name in others:
            assert not re.search(rf"--{re.escape(name)}[ ,]", help_), f"{name} is ours"


def test_every_kind_of_run_has_its_own_options(capsys):
    own = {
        "embedding": ["projection-dims", "lengths", "guide", "loss.margin", "loss.orthogonality"],
        "reranker": ["head", "drawn-negatives", "loss.pos-weight", "loss.sigma"],
    }
    for kind, other in zip(own, reversed(own), strict=True):
        _, help_, _ = run(capsys, "finetune", kind, "--help")
        assert all(f"--{name} " in help_ for name in (*own[kind], "prompts", "loss.scale"))
        assert not any(f"--{name} " in help_ for name in own[other])
        words = (f"--{own[other][-1]}", "2")
        assert f"{words[0]} is not for finetune {kind}" in refused(capsys, "finetune", kind, *words)


def test_help_of_a_preset_shows_what_it_is(capsys):
    for words, key in {
        ("pretrain", "base"): "two trillion tokens in three stages",
        ("finetune", "rte"): "RTE: does one sentence entail another?",
        ("finetune", "tokens"): "A label for each word",
    }.items():
        _, help_, _ = run(capsys, *words, "--help")
        assert f"CONFIG {words[1]}: " in help_ and key in " ".join(help_.split())
    for command in ("finetune", "pretrain", "sweep"):
        _, help_, _ = run(capsys, command, "--help")
        assert all(
            f"  {name} " in help_ for name in configs.presets(registry.COMMANDS[command].config)
        )

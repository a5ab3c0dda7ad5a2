"""The program: exit codes, one line for wrong input, and no files left over."""

import pytest
from program import refused, run

from modernbert_jax.cli import registry


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["quikstart"], "did you mean 'quickstart'?"),
        (["pretrain"], "CONFIG first: base"),
        (["pretrain", "nanno"], "did you mean 'nano'?"),
        (["pretrain", "nano", "--model.hiden-size", "64"], "did you mean --model.hidden-size?"),
        (["pretrain", "nano", "--seed", "x"], "--seed"),
        (["pretrain", "nano", "--model.hidden-size", "63"], "num_attention_heads"),
        (["pretrain", "nano", "--cpu-devices", "-1"], "--cpu-devices"),
        (["finetune"], "CONFIG first: classification"),
        (["finetune", "rtee"], "did you mean 'rte'?"),
        (["plan", "nano"], "--topology"),
        (["convert", "a"], "DST"),
        (["convert", "/nowhere/at/all", "out"], "/nowhere/at/all: no such"),
        (["convert", "a", "b", "--format", "onnx"], "--format"),
        (["inspect", "/nowhere/at/all"], "/nowhere/at/all: no such"),
        (["report", "/nowhere/at/all"], "metrics.jsonl"),
        (["fill-mask", "x [MASK]", "--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (["evaluate", "--model", "/nowhere/at/all", "--data", "x.jsonl"], "/nowhere/at/all"),
        (["report", "/nowhere", "--output", "/proc/x"], "/proc/x.png: cannot be written"),
        (["bench", "data", "--json", "/proc/x.json"], "/proc/x.json: cannot be written"),
        (["bench", "kernels", "--output", "/dev/null"], "/dev/null: is a device"),
        (["pretrain", "nano", "--output", "/proc/x"], "/proc/x: cannot be written"),
        (["pretrain", "nano", "--output", __file__], "is a file"),
        (["pretrain", "nano", "--dry-run", "--plot", __file__], "exists"),
        (["finetune", "rte", "--output", __file__], "is a file"),
        (["sweep", "rte", "--grid.seed", "1", "--output", "/proc/x"], "cannot be written"),
        (["quickstart", "--output", __file__], "is a file"),
        (
            ["prepare", "--tokenizer", "/nowhere", "--input", "/nowhere/*", "--output", "o"],
            "/nowhere/*: no such file",
        ),
    ],
)
def test_wrong_input_is_one_line(capsys, monkeypatch, tmp_path, words, key):
    monkeypatch.chdir(tmp_path)
    assert key in refused(capsys, *words)
    assert not list(tmp_path.iterdir())


def test_version(capsys):
    assert run(capsys, "--version")[1].startswith("modernbert-jax 0.")


def test_debug_shows_the_traceback(capsys):
    code, _, err = run(capsys, "inspect", "/nowhere/at/all", "--debug")
    assert code == 2 and "Traceback" in err


def test_unexpected_errors_exit_with_1(capsys, monkeypatch):
    class Broken:
        def load(self):
            raise RuntimeError("two\nlines")

    monkeypatch.setitem(registry.COMMANDS, "report", Broken())
    code, _, err = run(capsys, "report")
    assert code == 1 and err == "modernbert-jax: RuntimeError: two lines; --debug shows where\n"


def test_errors_never_flood_or_control_the_terminal(capsys, monkeypatch):
    class Broken:
        def load(self):
            raise RuntimeError("\x1b[2J\ud800" + "x" * 10**6)

    monkeypatch.setitem(registry.COMMANDS, "report", Broken())
    _, _, err = run(capsys, "report")
    assert "\\x1b[2J\\ud800" in err and len(err) < 5000

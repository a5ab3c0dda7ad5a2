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
        (
            ["evaluate", "--model", "/nowhere", "--data", "x", "--batch-tokens", "-8"],
            "--batch-tokens is -8; it must be 1 or more",
        ),
        (["fill-mask", "[MASK]", "--model", "/nowhere", "--top-k", "0"], "--top-k is 0"),
        (["verify", "a", "b", "--tolerance", "nan"], "--tolerance is nan; it must be 0 or more"),
        (["plan", "nano", "--topology", "v5e:4x4", "--mfu", "1.5"], "--mfu is 1.5"),
        (["pretrain", "nano", "--b1", "1.5"], "b1 is 1.5; it must be at least 0 and below 1"),
        (["pretrain", "nano", "--eval-mask-rate", "2"], "eval_mask_rate is 2.0"),
        (["pretrain", "nano", "--stages.0.weight-decay", "nan"], "weight_decay is nan"),
        (["pretrain", "nano", "--eval-rows", "-3"], "eval_rows is -3"),
        (
            ["prepare", "--tokenizer", "t", "--input", "i", "--output", "o", "--seed", "-1"],
            "--seed is -1; it must be at least 0 and below 2^32",
        ),
        (
            ["prepare", "--tokenizer", "t", "--input", "i", "--output", "o", "--length", "4"],
            "--length.0.0 is 4; it must be between 8 and 1,048,576",
        ),
        (["report", "/nowhere", "--output", "/proc/x"], "/proc/x.png: cannot be written"),
        (["convert", "/nowhere", __file__], "exists"),
        (["convert", "/nowhere", "/proc/x.pt"], "/proc/x.pt: cannot be written"),
        (["average", "/nowhere", "b", "--output", __file__], "exists"),
        (["bench", "data", "--json", "/proc/x.json"], "/proc/x.json: cannot be written"),
        (["bench", "kernels", "--output", "/dev/null"], "/dev/null: is a device"),
        (["pretrain", "nano", "--output", "/proc/x"], "/proc/x: cannot be written"),
        (["pretrain", "nano", "--output", __file__], "is a file"),
        (["pretrain", "nano", "--dry-run", "--plot", __file__], "exists"),
        (["finetune", "rte", "--output", __file__], "is a file"),
        (["pretrain", "nano", "--output", "caf\udce9"], "not UTF-8"),
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

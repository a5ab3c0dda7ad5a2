"""The program as a user meets it: exit codes, one line for wrong input, nothing left behind."""

import json
import logging

import corpus
import pytest

from modernbert_jax import cli
from modernbert_jax.train.pretrain import command


def run(capsys, *args) -> tuple[int, str, str]:
    """Exit code, stdout and stderr."""
    try:
        code = cli.main([str(a) for a in args])
    except SystemExit as end:
        code = end.code or 0
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def refused(capsys, *args) -> str:
    """The one line that a wrong command gets."""
    code, _, err = run(capsys, *args)
    assert code == 2 and len(err.strip().splitlines()) == 1, (code, err)
    assert "Traceback" not in err
    return err


def test_overview_version_and_help(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0 and all(name in out for name in cli.COMMANDS)
    assert run(capsys, "--version")[1].startswith("modernbert-jax 0.")
    for name in cli.COMMANDS:
        code, out, _ = run(capsys, *name.split(), "--help")
        assert code == 0 and name in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["quikstart"], "did you mean 'quickstart'?"),
        (["pretrain"], "needs a CONFIG first: base"),
        (["pretrain", "nanno"], "did you mean 'nano'?"),
        (["pretrain", "nano", "--model.hiden-size", "64"], "did you mean --model.hidden-size?"),
        (["pretrain", "nano", "--seed", "x"], "--seed"),
        (["pretrain", "nano", "--model.hidden-size", "63"], "num_attention_heads"),
        (["convert", "a"], "PATH"),
        (["convert", "/nowhere/at/all", "out"], "/nowhere/at/all: no such"),
        (["convert", "a", "b", "--format", "onnx"], "--format"),
        (["inspect", "/nowhere/at/all"], "/nowhere/at/all: no such"),
        (["report", "/nowhere/at/all"], "no metrics.jsonl"),
        (["fill-mask", "x [MASK]", "--model", "/nowhere/at/all"], "/nowhere/at/all"),
        (
            ["prepare", "--tokenizer", "/nowhere", "--input", "/nowhere/*", "--output", "o"],
            "/nowhere/*: no such file",
        ),
    ],
)
def test_wrong_input_is_one_line(capsys, monkeypatch, tmp_path, args, said):
    monkeypatch.chdir(tmp_path)
    assert said in refused(capsys, *args)
    assert not list(tmp_path.iterdir())


def test_debug_shows_the_traceback(capsys):
    code, _, err = run(capsys, "inspect", "/nowhere/at/all", "--debug")
    assert code == 2 and "Traceback" in err


def test_unexpected_errors_exit_with_1(capsys, monkeypatch):
    def broken():
        """Breaks."""
        raise RuntimeError("two\nlines")

    monkeypatch.setitem(cli.COMMANDS, "report", broken)
    code, _, err = run(capsys, "report")
    assert code == 1 and err == "modernbert-jax: RuntimeError: two lines; --debug shows where\n"


def test_tokenizer_and_prepare(capsys, tmp_path):
    text = corpus.write_jsonl(tmp_path / "text.jsonl", corpus.texts())
    train = [
        "tokenizer",
        "train",
        "--input",
        text,
        "--vocab-size",
        320,
        "--output",
        tmp_path / "tok",
    ]
    assert run(capsys, *train)[:2] == (0, f"{tmp_path / 'tok'}: 320 ids\n")
    assert "exists; choose another place" in refused(capsys, *train)
    prepare = ["prepare", "--tokenizer", tmp_path / "tok", "--input", text, "--length", 64, 128]
    code, out, _ = run(capsys, *prepare, "--output", tmp_path / "data")
    assert code == 0 and "rows of 64 tokens" in out and "rows of 128 tokens" in out
    mixture = tmp_path / "mixture.toml"
    mixture.write_text('[components.web]\ninput = ["text.jsonl"]\nweight = 2\n')
    twice = ["--length", 64, "--length", 128, "--deduplicate", "--workers", 1]
    mixed = [*prepare[:3], "--mixture", mixture, *twice, "--output", tmp_path / "mixed"]
    code, out, _ = run(capsys, *mixed)
    assert code == 0 and "web: packed" in out and "rows of 64" in out and "rows of 128" in out
    both = [*prepare, "--mixture", mixture, "--output", tmp_path / "both"]
    assert "needs either --input or --mixture" in refused(capsys, *both)
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe")
    bad = [*prepare[:4], tmp_path / "*.*", "--output", tmp_path / "data2"]
    assert "bad.txt: not UTF-8 at byte 0" in refused(capsys, *bad)
    assert not (tmp_path / "data2").exists()
    code, out, err = run(capsys, *bad, "--on-error", "skip")
    assert code == 0 and "bad.txt: skipped 1 document: not UTF-8" in err
    manifest = json.loads((tmp_path / "data2" / "manifest.json").read_text())
    skipped = [s["skipped"] for s in manifest["components"]["default"]["sources"]]
    assert {"not UTF-8": 1} in skipped
    small = ["pretrain", "nano", "--data", tmp_path / "data", "--model.vocab-size", 300]
    small += ["--model.pad-token-id", 2, "--output", tmp_path / "run"]
    assert "pass --model.vocab-size 320" in refused(capsys, *small)
    assert "has no rows of length 1024, only of 64, 128" in refused(
        capsys, "pretrain", "nano", "--data", tmp_path / "data", "--output", tmp_path / "run"
    )
    assert not (tmp_path / "run").exists()


def test_choices_of_attention_are_shown_as_plain_lines_while_training(capsys):
    log = logging.getLogger("modernbert_jax.attention.choice")
    with command.choices_shown():
        log.info("attention over documents: %s", "xla_range")
    log.info("not shown")
    assert capsys.readouterr().err == "attention over documents: xla_range\n"

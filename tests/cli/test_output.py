"""Lines that commands print while they run."""

import io
import logging
import os
import subprocess
import sys
import warnings

import pytest
from rich import console as rich_console
from rich import text as rich_text

from modernbert_jax import cli
from modernbert_jax.cli import output, registry
from modernbert_jax.io import progress

CHOICE = "attention %s: %s (%s)"


def test_each_choice_of_attention_is_one_line_on_stderr(capsys):
    log = logging.getLogger("modernbert_jax.attention.choice")
    with output.attention_choices():
        for call in ("over documents, 64 tokens", "within 128, 64 tokens", "within 128, 9 tokens"):
            log.info(CHOICE, call, "xla_range", "default on cpu")
        for _ in range(2):
            log.info(CHOICE, "over documents, 9 tokens", "dense", "tuned")
    log.info("not shown")
    assert capsys.readouterr().err.splitlines() == [
        "attention: xla_range (default on cpu)",
        "attention over documents, 9 tokens: dense (tuned)",
    ]


def test_a_choice_of_attention_is_not_written_into_a_progress_bar(monkeypatch):
    terminal = io.StringIO()
    console = rich_console.Console(file=terminal, force_terminal=True, width=80)
    monkeypatch.setattr(progress.rich_console, "Console", lambda **_: console)
    log = logging.getLogger("modernbert_jax.attention.choice")
    monkeypatch.setattr(sys, "stderr", terminal)
    with output.attention_choices(), progress.Progress(9, shown=True) as bar:
        bar.update("run", 1)
        log.info(CHOICE, "over documents", "xla_range", "default on cpu")
    lines = rich_text.Text.from_ansi(terminal.getvalue()).plain.splitlines()
    assert "attention: xla_range (default on cpu)" in [line.strip() for line in lines]


def test_warnings_are_lines_each_once(capsys):
    with output.warnings_in_lines():
        for _ in range(2):
            warnings.warn("of two\nlines", stacklevel=1)
    assert capsys.readouterr().err == "warning: of two lines\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_characters_that_a_stream_lacks_are_escapes(monkeypatch, encoding):
    text = f"\u4f60 {os.fsdecode(b'caf' + bytes([0xE9]))}"  # the second is a name in Latin-1
    monkeypatch.setattr(registry, "overview", lambda: text)
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    assert cli.main([]) == 0
    assert cli.main([text]) == 2
    for stream in streams.values():
        stream.flush()
        printed = stream.buffer.getvalue().decode(encoding)
        assert "caf\\udce9" in printed
        assert ("\u4f60" if encoding == "utf-8" else "\\u4f60") in printed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux only")
def test_a_closed_or_full_stdout_is_noticed_before_the_work():
    program = f"{sys.executable} -c 'from modernbert_jax import cli; raise SystemExit(cli.main())'"
    for redirected, key in {
        ">&-": "standard output is closed",
        "> /dev/full": "standard output: cannot be written (No space left",
    }.items():
        command = f"{program} inspect /nowhere {redirected}"
        run = subprocess.run(command, shell=True, capture_output=True, text=True)
        assert run.returncode == 2 and key in run.stderr and "nowhere" not in run.stderr
    run = subprocess.run(f"{program} --version 2>&-", shell=True, capture_output=True, text=True)
    assert run.returncode == 0 and run.stdout.startswith("modernbert-jax")


def test_a_stdout_that_fills_up_is_named(monkeypatch, capsys):
    class Full(io.StringIO):
        def flush(self):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(output, "discard", lambda: None)
    assert cli.main(["--version"]) == 2
    assert "standard output: cannot be written (No space left" in capsys.readouterr().err

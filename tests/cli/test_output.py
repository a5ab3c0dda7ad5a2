"""Lines that commands print while they run."""

import io
import logging
import sys
import warnings

from rich import console as rich_console
from rich import text as rich_text

from modernbert_jax.cli import output
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

"""Lines that commands print while they run."""

import logging
import warnings

from modernbert_jax.cli import output


def test_choices_of_attention_are_plain_lines_on_stderr(capsys):
    log = logging.getLogger("modernbert_jax.attention.choice")
    with output.attention_choices():
        log.info("attention over documents: %s", "xla_range")
    log.info("not shown")
    assert capsys.readouterr().err == "attention over documents: xla_range\n"


def test_warnings_are_lines_each_once(capsys):
    with output.warnings_in_lines():
        for _ in range(2):
            warnings.warn("of two\nlines", stacklevel=1)
    assert capsys.readouterr().err == "warning: of two lines\n"

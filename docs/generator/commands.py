"""The page of commands, from their `--help`."""

import contextlib
import io
import os
from unittest import mock

from modernbert_jax import cli
from modernbert_jax.cli.registry import COMMANDS


def help_of(*words: str) -> str:
    """What a command prints for `--help`, without colours, at most 100 characters wide."""
    plain = {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, plain),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        cli.main([*words, "--help"])
    return "\n".join(line.rstrip() for line in printed.getvalue().rstrip().splitlines())


def page() -> str:
    """The page: an overview, then the help of every command."""
    parts = [
        "# Commands",
        "This page is made from the program's own help. `modernbert-jax COMMAND --help` prints it"
        " for the installed version. Commands with a CONFIG take every field of it as an option"
        " after its name: `modernbert-jax pretrain nano --help`. See"
        " [configuration fields](configuration.md).",
        f"```text\n{help_of()}\n```",
    ]
    for name, command in COMMANDS.items():
        parts += [f"## {name}", command.summary, f"```text\n{help_of(*name.split())}\n```"]
    return "\n\n".join(parts) + "\n"

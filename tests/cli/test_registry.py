"""The registry: every command has options, help, and imports no more than it needs."""

import dataclasses
import subprocess
import sys

import pytest
from program import run

from modernbert_jax.cli.registry import COMMANDS

SIMPLE = {name for name, command in COMMANDS.items() if command.config is None}


def test_the_overview_lists_every_command(capsys):
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name, command in COMMANDS.items():
        assert f"  {name} " in out and command.summary in out


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_for_each_option(capsys, name):
    options = COMMANDS[name].load()
    assert dataclasses.is_dataclass(options) and callable(options.run)
    code, out, _ = run(capsys, *name.split(), "--help")
    assert code == 0 and f"modernbert-jax {name}" in out
    for field in dataclasses.fields(options):
        nested = dataclasses.is_dataclass(field.default_factory)
        assert nested or f"--{field.name.replace('_', '-')}" in out or "positional" in out
    for line in out.split("launch options")[0].split("grid options")[0].splitlines():
        assert not line.startswith("│ (default"), "an option without help"


def test_help_of_simple_commands_does_not_import_jax():
    code = (
        "import sys\nfrom modernbert_jax.cli import registry\n"
        "for name in sys.argv[1:]: registry.COMMANDS[name].load()\n"
        "print(*(m for m in ('jax', 'numpy', 'pyarrow', 'matplotlib') if m in sys.modules))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(SIMPLE)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""

"""Facts of the command line: commands, presets, and every option with its default."""

import re
from typing import Any

from program import Program

_OPTION = re.compile(r"(?:-\w, )?(--[\w.\-]+)")
_DEFAULT = re.compile(r"\((?:default: (.*?)|(required|repeatable))\)")


def record(program: Program) -> dict[str, Any]:
    """Options and defaults by command; those of pretraining and fine-tuning by preset."""
    overview = program.run("--help").stdout
    commands = re.findall(r"^  (\S+(?: \S+)?)  ", overview, re.MULTILINE)
    pretraining, finetuning = _presets(program, "pretrain"), _presets(program, "finetune")
    calls = [[*command.split(), "--help"] for command in commands]
    calls += [["pretrain", preset, "--help"] for preset in pretraining]
    calls += [["finetune", preset, "--help"] for preset in finetuning]
    results = program.run_together(calls)
    return {
        "commands": commands,
        "presets": {"pretrain": pretraining, "finetune": finetuning},
        "options": {
            " ".join(call[:-1]): {"exit": result.code, "defaults": options(result.stdout)}
            for call, result in zip(calls, results, strict=True)
        },
    }


def _presets(program: Program, command: str) -> list[str]:
    """The presets that a command names where it is given none."""
    stderr = program.run(command, fails=True).stderr
    return stderr.strip().rpartition(": ")[2].split(", ")


def options(text: str) -> dict[str, str | None]:
    """Every option of a help text with its default; None where it has none."""
    defaults: dict[str, str] = {}
    option = ""
    for cell in _cells(text):
        if match := _OPTION.match(cell):
            option = match[1]
        if option:
            defaults[option] = f"{defaults.get(option, '')} {cell.strip()}"
    return {option: _default(words) for option, words in sorted(defaults.items())}


def _cells(text: str) -> list[str]:
    """Lines within the frames of a help text, without the frames."""
    lines = (line for line in text.splitlines() if line.startswith("│ "))
    return [line.removeprefix("│ ").rstrip("│ ") for line in lines]


def _default(words: str) -> str | None:
    matches = _DEFAULT.findall(words)
    return next(filter(None, matches[-1]), "") if matches else None

"""Records what the program computes, to show that a rebuilt one computes the same, bit for bit.

    python tests/recordings/record.py --program OLD/.venv/bin/modernbert-jax --output before
    python tests/recordings/record.py --program NEW/.venv/bin/modernbert-jax --output after
    python tests/recordings/record.py compare before after

Both programs are driven by their command line and files alone, on one machine: bits depend on the
CPU and on the versions of jax. Needs numpy and safetensors.

It takes about eight minutes of one core, and eleven where nothing was compiled before. The exit
code of a command is a fact as well; some, as `verify` of unequal checkpoints, are meant to fail.
"""

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

import commands
import comparison
import converting
import facts
import finetuning
import preparing
import pretraining
from program import Program

PARTS = {
    "commands": commands.record,
    "preparing": preparing.record,
    "pretraining": pretraining.record,
    "finetuning": finetuning.record,
    "sweep": finetuning.record_sweep,
    "converting": converting.record,
}
"""Functions that record a part, by its name, which is also that of the file."""

_VERSIONS = """
import importlib.metadata, json, os, platform, sys
names = ("jax", "jaxlib", "numpy", "flax", "optax", "orbax-checkpoint", "tokenizers", "ml_dtypes")
print(json.dumps({
    "python": platform.python_version(),
    "machine": platform.machine(),
    "cores": len(os.sched_getaffinity(0)),
    "xla_flags": os.environ.get("XLA_FLAGS"),
    **{name: importlib.metadata.version(name) for name in names},
}))
"""


def main(arguments: list[str]) -> int:
    """Record or compare; returns the exit code."""
    if arguments[:1] == ["compare"]:
        parser = argparse.ArgumentParser(prog="record.py compare", description=comparison.__doc__)
        parser.add_argument("before", type=Path, help="folder of a recording")
        parser.add_argument("after", type=Path, help="folder of another one")
        parser.add_argument("--all", action="store_true", help="show every difference")
        parser.add_argument("--ignore", default="", help="regular expression of places")
        options = parser.parse_args(arguments[1:])
        return comparison.compare(options.before, options.after, options.all, options.ignore)
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--program", type=Path, required=True, help="path of modernbert-jax")
    parser.add_argument("--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=[*PARTS], help="some parts")
    parser.add_argument("--keep", action="store_true", help="keep the runs' folders in OUTPUT/work")
    options = parser.parse_args(arguments)
    record(options.program.absolute(), options.output, options.only, options.keep)
    return 0


def record(path: Path, output: Path, parts: list[str], keep: bool = False) -> None:
    """Record some parts into `output`, which must not exist yet."""
    work = output.absolute() / "work"
    work.mkdir(parents=True)
    program = Program(path, work)
    _write(output / "environment.json", facts.printed(program.run_python(_VERSIONS).stdout))
    _timed("inputs", lambda: preparing.make_inputs(program))
    for part in parts:
        _write(output / f"{part}.json", _timed(part, lambda part=part: PARTS[part](program)))
    if not keep:
        shutil.rmtree(work)


def _timed(name, function):
    began = time.monotonic()
    result = function()
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return result


def _write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

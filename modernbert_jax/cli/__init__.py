"""The program `modernbert-jax`: finds the command, runs it, and turns errors into exit codes.

registry       the commands
arguments      words of the command line → a command's options
options        types that options share
devices        how many virtual devices a run can use
output         what commands print
the others     the commands themselves
"""

import os
import sys
import traceback
from collections.abc import Sequence

from modernbert_jax.errors import UserError
from modernbert_jax.io import text

from . import arguments, output, registry


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code: 0 done, 2 wrong input, 1 anything else."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    code = _exit_code([word for word in words if word != "--debug"], debug)
    if code and "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        # At exit jax would wait for the other processes, which wait for this one.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


def _exit_code(words: Sequence[str], debug: bool) -> int:
    try:
        output.open_streams()
        code = _run(words)
        output.flush()
        return code
    except UserError as error:
        _print_error(str(error), debug)
        return 2
    except KeyboardInterrupt:
        _print_error("interrupted; run the same command again", debug)
        return 1
    except BrokenPipeError:
        output.discard()
        return 1
    except Exception as error:
        _print_error(f"{type(error).__name__}: {error}", debug, hint="; --debug shows where")
        return 1


def _run(words: Sequence[str]) -> int:
    if words and words[0] in ("--version", "-V"):
        from modernbert_jax import __version__

        print(f"modernbert-jax {__version__}")
        return 0
    if not words or words[0] in ("-h", "--help"):
        print(registry.overview())
        return 0
    name, rest = registry.find(words)
    return arguments.parse(name, registry.COMMANDS[name], rest)() or 0


def _print_error(line: str, debug: bool, hint: str = "") -> None:
    if debug:
        traceback.print_exc()
        hint = ""
    line = text.printable(" ".join(line.split()))
    print(f"modernbert-jax: {text.clipped(line)}{hint}", file=sys.stderr)

"""Printed output of commands: JSON, warnings, and the end of a run."""

import contextlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io import outputs

_STDOUT = "standard output"


def open_streams() -> None:
    """Make stdout and stderr print every character, as an escape where they have no other form.

    Descriptors that are closed are opened to /dev/null, so that no file of the run gets their
    number.

    Raises:
        UserError: stdout is closed, full, or read by nobody.
    """
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as long as the process
    if sys.stdout is None:
        raise UserError(f"{_STDOUT} is closed; redirect it to a file or /dev/null")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        with contextlib.suppress(io.UnsupportedOperation):
            outputs.check_descriptor(sys.stdout.fileno(), _STDOUT)


def flush() -> None:
    """Write what stdout holds back. Raises `UserError` if it cannot be written."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard()
        raise outputs.unwritable(_STDOUT, error) from None


def discard() -> None:
    """Drop what stdout holds back and all that follows."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(value: Any, beside: str | Path | None = None) -> None:
    """Print a value as indented JSON; on stderr if an output of the command was stdout."""
    print_beside(json.dumps(value, indent=2), beside)


def print_beside(text: str, output: str | Path | None) -> None:
    """Print on stdout, or on stderr if an output of the command was stdout."""
    if output is not None and outputs.descriptor(output) == outputs.STDOUT:
        print_to_stderr(text)
    else:
        print(text)


def print_to_stderr(line: str) -> None:
    """Print a line that is not part of the command's result."""
    print(line, file=sys.stderr, flush=True)


def print_skipped(skipped: Mapping[str, int]) -> None:
    """Print how many documents were skipped, by reason."""
    for reason, count in skipped.items():
        print_to_stderr(f"skipped {count:,} documents: {reason}")


def print_stopped(output: str | Path, command: str) -> None:
    """Print that a run was stopped, and how to resume it."""
    print(f"{output}: stopped, checkpoint saved; run the same {command} command to resume")


def print_finished(output: str | Path) -> None:
    """Print that a run is finished, and where its model is."""
    print(f"{output}: finished; the model is in {Path(output) / 'export'}")


@contextlib.contextmanager
def warnings_in_lines() -> Iterator[None]:
    """Print the warnings of the block at its end, one line each on stderr, without code."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        try:
            yield
        finally:
            for message in dict.fromkeys(str(w.message) for w in caught):
                print_to_stderr(f"warning: {' '.join(message.split())}")


class _AttentionLines(logging.Handler):
    """Prints each choice of attention once, whatever the shapes of the calls."""

    def __init__(self):
        super().__init__()
        self._printed: set[tuple[object, ...]] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Print the choice, with the call if another choice came before it."""
        _, name, why = record.args or ("", "", "")
        if (name, why) in self._printed:
            return
        line = record.getMessage() if self._printed else f"attention: {name} ({why})"
        self._printed.add((name, why))
        print_to_stderr(line)  # the stderr of now, which a progress bar keeps apart from itself


@contextlib.contextmanager
def attention_choices() -> Iterator[None]:
    """Print on stderr, in process 0, which implementation computes attention, and why."""
    import jax

    log, handler = logging.getLogger("modernbert_jax.attention"), _AttentionLines()
    before = log.level, log.propagate
    if jax.process_index() == 0:
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False  # a handler that a library gave the root would print it twice
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before[0])
        log.propagate = before[1]

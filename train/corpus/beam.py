"""The units of work on Apache Beam: DirectRunner here, Dataflow, Flink or Spark on many machines.

Every step maps one function over items and leaves its results in the output, just as local
processes do; so the files are the same, byte for byte, whoever made them.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from modernbert_jax.errors import UserError
from modernbert_jax.io.store import Store

_ERRORS = "work/errors"

ELSEWHERE = ("DataflowRunner",)
"""Runners whose machines cannot see a local path."""


def runner(name: str, options: Sequence[str], root: str) -> Callable[..., None]:
    """What `prepare` takes as `run`: calls a function with every item, on a runner of Beam.

    Args:
        name: the runner's name, as Beam knows it.
        options: its options, each NAME=VALUE, or NAME for a switch.
        root: where the work lies, a path or URL that all machines can write to.

    Raises:
        UserError: Beam is not installed, or an option that looks like something else.
    """
    try:
        import apache_beam  # noqa: F401
    except ImportError:
        raise UserError(
            "--runner needs Apache Beam; install it with `pip install 'modernbert-jax[beam]'`"
        ) from None
    for option in options:
        if not re.match(r"[A-Za-z_]\w*(=|$)", option):
            raise UserError(f"--runner-options: {option!r} is not NAME=VALUE")
    flags = [f"--runner={name}", *(f"--{option}" for option in options)]
    return functools.partial(_run, flags=flags, root=root)


def _run(
    function: Callable[[Any], None], items: Sequence[Any], *, flags: list[str], root: str
) -> None:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    store = Store(root)
    store.remove(_ERRORS)
    with beam.Pipeline(options=PipelineOptions(flags)) as pipeline:
        _ = (
            pipeline
            | "units" >> beam.Create(list(enumerate(items)))
            | "spread" >> beam.Reshuffle()
            | "work" >> beam.Map(functools.partial(call, root, function))
        )
    for name in store.names(_ERRORS)[:1]:
        raise UserError(store.read(f"{_ERRORS}/{name}").decode())


def call(root: str, function: Callable[[Any], None], numbered: tuple[int, Any]) -> None:
    """Calls the function with an item. What is wrong with the user's input is written down.

    Raised here, it would be tried again and again, and end up as a traceback in a log.
    """
    number, item = numbered
    try:
        function(item)
    except UserError as error:
        Store(root).write(f"{_ERRORS}/{number:05d}.txt", str(error).encode())

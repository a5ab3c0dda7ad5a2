"""Units of work on Apache Beam: DirectRunner locally, Dataflow, Flink or Spark on many machines.

Each step maps a function over items and stores its results in the output, as local processes do.
The files are therefore the same bytes with any runner.
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
    """Return a function for `prepare`'s argument `run` that uses a runner of Beam.

    Args:
        name: The runner's name, as Beam knows it.
        options: The runner's options, each NAME=VALUE, or NAME for a switch.
        root: Path or URL of the work, writable from all machines.

    Raises:
        UserError: Beam is not installed, or an option is malformed.
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
    """Call a function with a numbered item, and store the message of a `UserError`.

    Raised on a worker, it would be retried and end as a traceback in that worker's log.
    """
    number, item = numbered
    try:
        function(item)
    except UserError as error:
        Store(root).write(f"{_ERRORS}/{number:05d}.txt", str(error).encode())

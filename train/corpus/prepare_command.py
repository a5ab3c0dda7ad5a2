"""The `prepare` command: what the user asked for, what is shown, what was left out."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from modernbert_jax.errors import UserError
from modernbert_jax.io.progress import Progress
from modernbert_jax.io.store import is_remote
from modernbert_jax.tokenizer import Tokenizer

from ..rows.manifest import DEFAULT, Manifest
from .components import CorpusComponent, read_mixture
from .prepare import prepare
from .sources import Corpus, OnError
from .writer import work_root

_NAMED = 20
"""Files with unusable documents that are shown; the manifest lists all."""


def main(
    tokenizer: str | Path,
    output: str,
    *,
    input: Sequence[str],
    mixture: str | Path | None,
    lengths: Sequence[int],
    field: str,
    on_error: OnError,
    runner: str | None,
    runner_options: Sequence[str],
    **options,
) -> None:
    """Prepares `output`; `options` are those of `prepare.prepare`. Raises `UserError`."""
    parts = _parts(input, mixture, field, on_error)
    if runner is not None:
        from . import beam

        if runner in beam.ELSEWHERE and not is_remote(output):
            raise UserError(f"--output is {output}, which {runner} cannot see; give a URL (gs://)")
        options["run"] = beam.runner(runner, runner_options, work_root(output))
    elif runner_options:
        raise UserError("--runner-options needs --runner")
    with Progress(1, of="unit") as progress:
        began = time.monotonic()

        def watch(done: int, of: int, documents: int) -> None:
            speed = documents / max(time.monotonic() - began, 1e-3)
            progress.total = of
            progress.update("prepare", done, f"{documents:,} documents  {speed:,.0f}/s")

        made = prepare(
            parts, Tokenizer.load(tokenizer), output, lengths, watch=watch, report=print, **options
        )
    for line in left_out(made):
        print(line, file=sys.stderr)
    print(f"{output}: ready for `modernbert-jax pretrain --data {output}`")


def left_out(made: Manifest) -> list[str]:
    """Which files had documents that could not be used, how many and why."""
    found = [
        f"{source.path}: skipped {count:,} document{'s' * (count > 1)}: {reason}"
        for component in made.components.values()
        for source in component.sources
        for reason, count in source.skipped.items()
    ]
    if len(found) > _NAMED:
        more = f"... and {len(found) - _NAMED:,} more; manifest.json lists all"
        found = [*found[:_NAMED], more]
    tokenless = sum(component.tokenless for component in made.components.values())
    if tokenless:
        found.append(f"skipped {tokenless:,} documents of which the tokenizer makes nothing")
    return found


def _parts(
    input: Sequence[str], mixture: str | Path | None, field: str, on_error: OnError
) -> dict[str, CorpusComponent]:
    if bool(input) == bool(mixture):
        raise UserError("prepare needs either --input or --mixture")
    if mixture is not None:
        return read_mixture(mixture, on_error)
    return {DEFAULT: CorpusComponent(corpus=Corpus.find(input, field=field, on_error=on_error))}

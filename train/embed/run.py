"""Embed the texts of an input into a folder of shards; a killed run resumes.

Every device of every process writes shards of its own. A shard depends on its texts alone, so the
folder is the same bytes for any number of processes and devices of one kind.
"""

import contextlib
import functools
import io
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import numpy as np

from modernbert_jax.errors import UserError
from modernbert_jax.io.host_memory import has_only_cpu
from modernbert_jax.io.progress import Progress

from . import inputs, models
from .config import LATE_SHARD_TEXTS, SHARD_TEXTS, Embedding
from .folder import LEASES, RANGES, Folder, name_of
from .leases import Leases
from .numbers import Numbers
from .shard import calibrate, embed_shard
from .shard_files import Columns
from .work import Stopped, Work, once

STREAMS = 2
"""Shards that are worked on at a time for each accelerator: while the texts of one are tokenized or
its files are written, the device computes the other. A CPU has nothing to gain."""

_READERS = 8
"""Records of shards that are read at a time."""

_LOOK = 0.25
"""Seconds between two updates of the progress."""


def embed(options: Embedding, model: models.Model | None = None) -> dict[str, Any]:
    """Write the vectors of all texts, together with other processes that do the same.

    Args:
        options: of the embedding.
        model: what `models.load` has loaded for these options; None loads it.

    Returns:
        "texts", "tokens" and "shards" of the whole folder, "skipped" rows by reason, and of this
        process the "seconds", "tokens_per_second" and the "full" share of the computed tokens, or
        None where it computed nothing.

    Raises:
        UserError: wrong input; see `Embedding`.
    """
    folder = Folder(options.output)
    inputs.check_outside(options.output, options.input)
    sources = inputs.files(options.input)
    with contextlib.ExitStack() as stack:
        model = model or models.load(options)
        size = options.shard_texts or (
            LATE_SHARD_TEXTS if model.kind == "late-interaction" else SHARD_TEXTS
        )
        facts = {
            "input": inputs.identity(sources, options.lines),
            "shard_texts": size,
            **model.facts,
        }
        leases: Leases | None = None
        if not options.remote and options.processes == 1:
            leases = stack.enter_context(Leases(Path(folder.path) / LEASES, options.lease_seconds))
        alone = functools.partial(once, leases=leases, first=options.process == 0)
        survey = functools.partial(_survey, folder, facts, sources, size, options)
        alone("survey", lambda: folder.started, survey)
        folder.check(facts)
        layout = folder.layout()
        numbers = Numbers(options.dtype)
        if options.dtype == "int8" and layout.starts:
            sample = functools.partial(_calibrate, folder, sources, layout, model, options)
            alone("ranges", lambda: folder.store.exists(RANGES), sample)
            content = io.BytesIO(folder.store.read(RANGES))
            numbers = Numbers(options.dtype, np.load(content, allow_pickle=False))
        columns = model.columns(numbers)
        part = (options.process, options.processes)
        work = Work(folder, len(layout.starts), leases, part)
        counts = _Counts()
        _write(work, sources, layout, model, columns, options, folder, counts)
        if leases is not None:
            leases.remove(map(name_of, folder.finished()))
        return _summary(folder, work, layout, counts)


def _survey(
    folder: Folder, facts: dict[str, Any], sources: list[Any], size: int, options: Embedding
) -> None:
    """Divide the input into shards, and write how."""
    with Progress(len(sources), of="file", delay=5.0) as progress:
        watch = functools.partial(progress.update, "count rows")
        layout = inputs.survey(sources, options.lines, size, watch)
    folder.start(facts, layout)


def _calibrate(
    folder: Folder,
    sources: list[Any],
    layout: inputs.Layout,
    model: models.Model,
    options: Embedding,
) -> None:
    """Write the ranges of the dimensions."""
    with inputs.Reader(sources, layout, options.lines) as reader:
        ranges = calibrate(reader, len(layout.starts), model.encoders[0], model, options)
    content = io.BytesIO()
    np.save(content, ranges)
    folder.store.write(RANGES, content.getvalue())


class _Counts:
    """What this process has done, counted by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.texts = self.tokens = self.computed = 0
        self.began = time.monotonic()

    def add(self, texts: int, tokens: int, computed: int) -> None:
        """Count texts, their tokens, and tokens with padding."""
        with self._lock:
            self.texts, self.tokens = self.texts + texts, self.tokens + tokens
            self.computed += computed

    @property
    def seconds(self) -> float:
        """Seconds since the work began."""
        return max(time.monotonic() - self.began, 1e-6)


def _write(
    work: Work,
    sources: list[Any],
    layout: inputs.Layout,
    model: models.Model,
    columns: Columns,
    options: Embedding,
    folder: Folder,
    counts: _Counts,
) -> None:
    """Write all shards that are missing, on all devices, and show the progress."""

    def watch(texts: int, tokens: int, computed: int) -> None:
        counts.add(texts, tokens, computed)
        work.check()

    def stream(encoder: models.Encoder) -> None:
        with (
            inputs.Reader(sources, layout, options.lines) as reader,
            contextlib.closing(work.shards()) as shards,
        ):
            for shard in shards:
                args = (shard, reader, encoder, model, columns, options, folder, watch)
                try:
                    embed_shard(*args)
                except (UserError, OSError):
                    # Another process that took this one for dead has written the shard.
                    if not folder.has(shard):
                        raise

    streams = 1 if has_only_cpu() else STREAMS
    encoders = [encoder for encoder in model.encoders for _ in range(streams)]
    shown = Progress(layout.total, of="text", shown=options.process == 0)
    with ThreadPoolExecutor(len(encoders)) as pool, shown as progress:
        running = [pool.submit(stream, encoder) for encoder in encoders]
        before = {*work.done}
        try:
            while wait(running, _LOOK, FIRST_EXCEPTION).not_done:
                if any(future.done() and future.exception() for future in running):
                    break
                _show(progress, layout, work, before, counts)
        finally:
            work.stop()
        _raise_first([future.exception() for future in running])
        _show(progress, layout, work, before, counts)


def _raise_first(errors: list[BaseException | None]) -> None:
    """Raise an error of a thread, rather one that stopped the others."""
    found = [error for error in errors if error is not None]
    for error in sorted(found, key=lambda error: isinstance(error, Stopped)):
        raise error


def _show(
    progress: Progress, layout: inputs.Layout, work: Work, before: set[int], counts: _Counts
) -> None:
    """Show the texts that are done by all processes, the speed of this one, and the time left."""
    written = {*work.done}
    rows = sum(map(layout.count, written))
    begun = sum(map(layout.count, before))
    # Shards of this process that are not finished yet count by their texts.
    done = min(max(rows, begun + counts.texts), layout.total)
    numbers = f"{counts.tokens / counts.seconds:,.0f} tokens/s"
    if counts.computed:
        numbers += f"  {100 * counts.tokens / counts.computed:.1f} % full"
    if begun < done < layout.total:
        left = counts.seconds * (layout.total - done) / (done - begun)
        numbers += f"  {_time(left)} left"
    progress.update("embed", done, numbers)


def _time(seconds: float) -> str:
    """A duration as hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def _summary(folder: Folder, work: Work, layout: inputs.Layout, counts: _Counts) -> dict[str, Any]:
    """What `embed` returns."""
    shards = sorted(folder.finished())
    with ThreadPoolExecutor(_READERS) as pool:  # at a URL each is a request
        records = list(pool.map(folder.record, shards))
    skipped: dict[str, int] = {}
    for record in records:
        for reason, count in record["skipped"].items():
            skipped[reason] = skipped.get(reason, 0) + count
    if len(shards) == len(layout.starts):
        folder.remove_leftovers()
    computed = counts.computed or None
    return {
        "texts": sum(record["texts"] for record in records),
        "tokens": sum(record["tokens"] for record in records),
        "shards": len(shards),
        "missing": len(layout.starts) - len(shards),
        "skipped": skipped,
        "seconds": counts.seconds,
        "tokens_per_second": counts.tokens / counts.seconds if computed else None,
        "full": counts.tokens / computed if computed else None,
    }

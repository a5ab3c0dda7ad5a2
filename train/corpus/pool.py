"""Map a function over items in local processes, with progress, interruption and clean ends."""

import concurrent.futures
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

POLL_SECONDS = 0.2

Work = Callable[[Any], None]
Watch = Callable[[int, int, int], None]
"""Receives finished items, all items, and documents so far."""

_tick: Callable[[int], None] | None = None
"""Receives the documents that `tick` reports, in this process."""


class Stopped(Exception):
    """Another item failed, or the user interrupted the work."""


def tick(documents: int) -> None:
    """Report that more documents are done. Raises `Stopped` if the work shall end."""
    if _tick is not None:
        _tick(documents)


def run(
    function: Work,
    items: Sequence[Any],
    workers: int,
    watch: Watch = lambda done, of, documents: None,
) -> None:
    """Call a function with every item.

    With fewer items than workers, each process lets the tokenizer use several threads. The first
    exception of an item is raised; finished items stay finished.

    Args:
        function: What to call; with several processes it must be picklable.
        items: Its arguments.
        workers: Number of processes, at most.
        watch: Receives the progress.
    """
    processes = min(workers, len(items))
    threads = max(1, workers // max(1, processes))
    if processes > 1:
        _in_processes(function, items, processes, threads, watch)
    else:
        _in_this_process(function, items, threads, watch)


def _in_this_process(function: Work, items: Sequence[Any], threads: int, watch: Watch) -> None:
    global _tick
    done = documents = 0

    def more(count: int) -> None:
        nonlocal documents
        documents += count
        watch(done, len(items), documents)

    before, _tick = _tick, more
    try:
        with _environment(threads):
            for item in items:
                function(item)
                done += 1
                watch(done, len(items), documents)
    finally:
        _tick = before


def _in_processes(
    function: Work, items: Sequence[Any], processes: int, threads: int, watch: Watch
) -> None:
    context = multiprocessing.get_context("spawn")
    count, stop = context.Value("q", 0), context.Value("b", 0)
    with concurrent.futures.ProcessPoolExecutor(
        processes, context, _start_worker, (count, stop, threads)
    ) as executor:
        waiting = {executor.submit(function, item) for item in items}
        try:
            while waiting:
                done, waiting = concurrent.futures.wait(waiting, POLL_SECONDS)
                for future in done:
                    future.result()
                watch(len(items) - len(waiting), len(items), count.value)
        except BaseException:
            stop.value = 1
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _start_worker(count: Any, stop: Any, threads: int) -> None:
    """Initialise a worker: it ignores Ctrl-C, which the parent handles, and ends with the parent.

    `count` and `stop` are shared with the parent: documents so far, and the request to end.
    """
    global _tick

    def more(documents: int) -> None:
        with count.get_lock():
            count.value += documents
        if stop.value:
            raise Stopped

    _tick = more
    os.environ.update(_thread_settings(threads))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None  # only workers call this
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _thread_settings(threads: int) -> dict[str, str]:
    parallel = "true" if threads > 1 else "false"
    return {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": parallel}


@contextlib.contextmanager
def _environment(threads: int) -> Iterator[None]:
    """Set the tokenizer's number of threads, which its first use fixes, within the block."""
    settings = _thread_settings(threads)
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})

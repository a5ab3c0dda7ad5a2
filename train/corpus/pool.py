"""One function over many items, in as many processes as there is work for."""

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

_state: tuple[Any, Any] | None = None
"""In a worker: the count of documents and the wish to stop, both shared with the parent."""
_watch: Callable[[int], None] | None = None
"""Where the work is done in this process: what is called with more documents."""


class Stopped(Exception):
    """Another item failed, or the user stopped the work."""


def tick(documents: int) -> None:
    """Tells whoever shows progress that more documents are done. Raises `Stopped` on a stop."""
    if _watch is not None:
        _watch(documents)
    if _state is not None:
        count, stop = _state
        with count.get_lock():
            count.value += documents
        if stop.value:
            raise Stopped


def run(
    function: Callable[[Any], None],
    items: Sequence[Any],
    workers: int,
    watch: Callable[[int, int, int], None] = lambda done, of, documents: None,
) -> None:
    """Calls the function with every item; `watch` hears of items done, all items and documents.

    With fewer items than workers, each process lets the tokenizer use several threads. Raises
    what the first item to fail raises; finished items stay finished.
    """
    processes = min(workers, len(items))
    threads = max(1, workers // max(1, processes))
    if processes > 1:
        _in_processes(function, items, processes, threads, watch)
    else:
        _here(function, items, threads, watch)


def _here(function, items, threads, watch) -> None:
    global _watch
    done = documents = 0

    def more(count: int) -> None:
        nonlocal documents
        documents += count
        watch(done, len(items), documents)

    before = _watch
    _watch = more
    try:
        with _threads(threads):
            for item in items:
                function(item)
                done += 1
                watch(done, len(items), documents)
    finally:
        _watch = before


def _in_processes(function, items, processes, threads, watch) -> None:
    context = multiprocessing.get_context("spawn")
    count, stop = context.Value("q", 0), context.Value("b", 0)
    with concurrent.futures.ProcessPoolExecutor(
        processes, context, _begin, (count, stop, threads)
    ) as executor:
        futures = [executor.submit(function, item) for item in items]
        waiting = set(futures)
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


def _begin(count, stop, threads: int) -> None:
    """In a new worker: it ignores Ctrl-C, which the parent hears too, and ends with the parent."""
    global _state
    _state = count, stop
    os.environ.update(_thread_settings(threads))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _thread_settings(threads: int) -> dict[str, str]:
    parallel = "true" if threads > 1 else "false"
    return {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": parallel}


@contextlib.contextmanager
def _threads(threads: int) -> Iterator[None]:
    """The tokenizer's threads while the block runs. Their number is fixed by its first use."""
    settings = _thread_settings(threads)
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})

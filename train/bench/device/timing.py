"""Compiling many programs at once, and timing them one after another."""

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import jax

MOST_CALLS = 64
"""Calls in flight at once."""

LONGEST = 4.0
"""Seconds of repetitions after which no further one begins."""


class Program(NamedTuple):
    """A function with arguments: arrays, or their shapes."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


def compile_all(
    programs: Iterable[tuple[Any, Program]],
) -> Iterator[tuple[Any, Callable[..., Any] | Exception]]:
    """Compiles programs in threads; yields each key with its program, or with what went wrong.

    Tracing holds Python's lock: programs are traced in order while earlier ones are compiled.
    """
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        started: list[tuple[Any, Any, Future | Exception]] = []
        for key, program in programs:
            try:
                lowered = jax.jit(program.function).lower(*program.arguments)
                started.append((key, lowered, pool.submit(lowered.compile)))
            except Exception as error:
                started.append((key, None, error))
        for key, lowered, job in started:
            if isinstance(job, Exception):
                yield key, job
            else:
                yield key, _outcome(lowered, job)


def _outcome(lowered: jax.stages.Lowered, job: Future) -> Callable[..., Any] | Exception:
    """The compiled program, or the second error: assemblers started at once may fail to start."""
    try:
        return job.result()
    except Exception:
        try:
            return lowered.compile()
        except Exception as error:
            return error


def seconds(call: Callable[[], Any], at_least: float, repeats: int) -> float:
    """Seconds of one call: the median over repetitions of many calls that are waited for once.

    Args:
        call: returns arrays of jax that may still be computed.
        at_least: seconds of a repetition, which decide how many calls it has.
        repeats: repetitions; fewer where one is long.
    """
    jax.block_until_ready(call())
    once = max(_repetition(call, 1), 1e-6)
    count = max(1, min(MOST_CALLS, round(at_least / once)))
    times: list[float] = []
    while len(times) < repeats and sum(times) * count < LONGEST:
        times.append(_repetition(call, count))
    return statistics.median(times)


def _repetition(call: Callable[[], Any], count: int) -> float:
    began = time.perf_counter()
    for _ in range(count):
        out = call()
    jax.block_until_ready(out)
    return (time.perf_counter() - began) / count


def ready(result: Callable[..., Any] | Exception) -> Callable[..., Any]:
    """The compiled program. Raises what went wrong instead."""
    if isinstance(result, Exception):
        raise result
    return result

"""`Batcher`: documents of many requests → packed batches → the results of each request.

A batch is closed as soon as its rows are full. On an idle device it is closed at the latest some
milliseconds after its first document came; while the device computes, documents gather. All state
belongs to the event loop; only `Programs.run` is called in other threads.
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import math
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from modernbert_jax.inference.runner import Document
from modernbert_jax.inference.shapes import Shape

from . import shapes
from .faults import Fault, overloaded
from .metrics import Metrics
from .programs import Programs
from .settings import Settings

_LOOKED_AT = 4096
"""Waiting documents that are considered for a batch."""

_SMOOTHING = 0.9
"""Weight of the past in the estimate of tokens per second."""

Job = tuple[Shape, list[list["_Waiting"]]]


@dataclasses.dataclass(eq=False)
class _Group:
    """The documents of a request."""

    future: asyncio.Future[list[np.ndarray]]
    results: list[Any]
    left: int
    keys: list[int] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False, slots=True)
class _Waiting:
    """A document in the queue."""

    key: int
    group: _Group
    place: int
    document: Document
    skip: int
    arrived: float


class _Queue:
    """The waiting documents of a lane, in the order of their arrival."""

    def __init__(self, name: str, capacity: int):
        self.name, self.capacity, self.tokens = name, capacity, 0
        self._waiting: collections.OrderedDict[int, _Waiting] = collections.OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, item: _Waiting) -> None:
        """Add a document at the end."""
        self._waiting[item.key] = item
        self.tokens += len(item.document.ids)

    def remove(self, key: int) -> None:
        """Take a document out, if it still waits."""
        if (item := self._waiting.pop(key, None)) is not None:
            self.tokens -= len(item.document.ids)

    def first(self, count: int) -> list[_Waiting]:
        """The first documents."""
        return list(itertools.islice(self._waiting.values(), count))

    @property
    def since(self) -> float:
        """When the first document arrived; infinity if none waits."""
        return next(iter(self._waiting.values())).arrived if self._waiting else math.inf


class Batcher:
    """Runs the documents of all requests, packed together."""

    def __init__(self, programs: Programs, settings: Settings, metrics: Metrics):
        """A batcher of compiled programs; `start` begins to work."""
        self._programs, self._settings, self._metrics = programs, settings, metrics
        self._queues = {
            name: _Queue(name, max(s.tokens for s in programs.shapes[name]))
            for name in programs.lanes
        }
        self._keys, self._changed = itertools.count(), asyncio.Event()
        self._closing, self._rate = False, 0.0
        self._loop: asyncio.Task[None] | None = None
        self._running: set[asyncio.Future[Any]] = set()
        self._threads = ThreadPoolExecutor(programs.ahead, "device")
        metrics.gauge("queue_tokens", "Tokens that wait for the device.", lambda: self.tokens)
        metrics.gauge(
            "queue_texts",
            "Texts that wait for the device.",
            lambda: sum(map(len, self._queues.values())),
        )

    @property
    def tokens(self) -> int:
        """Tokens of all waiting documents."""
        return sum(queue.tokens for queue in self._queues.values())

    @property
    def alive(self) -> bool:
        """Whether documents are being worked on."""
        return self._loop is not None and not self._loop.done()

    @property
    def closing(self) -> bool:
        """Whether no more documents are taken."""
        return self._closing

    def start(self) -> None:
        """Begin to work, in the running event loop."""
        self._loop = asyncio.create_task(self._work())

    async def close(self) -> None:
        """Finish all documents that were taken, and end."""
        self._closing = True
        self._changed.set()
        if self._loop is not None:
            await self._loop
        self._threads.shutdown()

    def retry_after(self) -> int:
        """Seconds after which the present queue will be done, from 1 to 60, as far as is known."""
        return min(max(math.ceil(self.tokens / self._rate) if self._rate else 1, 1), 60)

    async def submit(
        self, lane: str, documents: Sequence[Document], skip: int = 0
    ) -> list[np.ndarray]:
        """Results of documents in order: float32 [width], or [tokens, width], of each.

        If the caller is cancelled, documents that still wait leave the queue.

        Args:
            lane: a key of `Programs.lanes`.
            documents: each no longer than the longest row.
            skip: tokens of the prompt at the start of each.

        Raises:
            Fault: the queue is full, or the server is ending.
        """
        if self._closing:
            raise Fault(503, "the server is shutting down", "Unhealthy", retry_after=5)
        tokens = sum(len(document.ids) for document in documents)
        if self.tokens and self.tokens + tokens > self._settings.queue_tokens:
            message = f"{self.tokens:,} tokens wait already; try again later"
            raise overloaded(message, self.retry_after())
        spec, queue, now = self._programs.lanes[lane], self._queues[lane], time.monotonic()
        empty = np.zeros((0, spec.width) if spec.level == "token" else spec.width, np.float32)
        future: asyncio.Future[list[np.ndarray]] = asyncio.get_running_loop().create_future()
        group = _Group(future, [empty for _ in documents], sum(bool(d.ids) for d in documents))
        for place, document in enumerate(documents):
            if document.ids:
                group.keys.append(key := next(self._keys))
                queue.put(_Waiting(key, group, place, document, skip, now))
        if not group.left:
            return group.results
        self._changed.set()
        try:
            return await future
        finally:  # after a cancellation or a failed batch some may still wait
            for key in group.keys:
                queue.remove(key)

    async def _work(self) -> None:
        """Close batches and start them, until the end."""
        while True:
            while len(self._running) >= self._programs.ahead:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            queue = await self._due()
            if queue is None:
                break
            job = self._take(queue)
            running = asyncio.ensure_future(self._run(queue.name, job))
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        if self._running:
            await asyncio.wait(self._running)

    async def _due(self) -> _Queue | None:
        """The queue whose batch is closed now; None at the end."""
        while True:
            queues = sorted(filter(len, self._queues.values()), key=lambda queue: queue.since)
            if not queues and self._closing:
                return None
            left = math.inf
            if queues:
                due = queues[0].since + self._settings.wait_ms / 1e3
                left = 0 if self._closing else due - time.monotonic()
                full = [queue for queue in queues if queue.tokens >= queue.capacity]
                if left <= 0 or full:
                    return queues[0] if left <= 0 else full[0]
            self._changed.clear()
            with contextlib.suppress(TimeoutError, asyncio.TimeoutError):
                timeout = None if left == math.inf else left
                await asyncio.wait_for(self._changed.wait(), timeout)

    def _take(self, queue: _Queue) -> Job:
        """Take the documents of a batch out of a queue."""
        waiting = queue.first(_LOOKED_AT)
        lengths = [len(item.document.ids) for item in waiting]
        shape, rows = shapes.close(lengths, self._programs.shapes[queue.name])
        items = [[waiting[i] for i in row] for row in rows]
        for row in items:
            for item in row:
                queue.remove(item.key)
        return shape, items

    async def _run(self, lane: str, job: Job) -> None:
        """Run a batch, and hand out its results."""
        shape, rows = job
        documents = [[item.document for item in row] for row in rows]
        skips = [[item.skip for item in row] for row in rows]
        began = time.monotonic()
        try:
            results = await asyncio.get_running_loop().run_in_executor(
                self._threads, self._programs.run, lane, shape, documents, skips
            )
        except Exception as error:
            for group in {item.group for row in rows for item in row}:
                if not group.future.done():
                    group.future.set_exception(error)
            return
        self._count(lane, shape, documents, time.monotonic() - began)
        for row, values in zip(rows, results, strict=True):
            for item, value in zip(row, values, strict=True):
                group = item.group
                group.results[item.place] = value
                group.left -= 1
                if not group.left and not group.future.done():
                    group.future.set_result(group.results)

    def _count(
        self, lane: str, shape: Shape, rows: Sequence[Sequence[Document]], seconds: float
    ) -> None:
        tokens = sum(len(document.ids) for row in rows for document in row)
        metrics, name = self._metrics, self._programs.lanes[lane].name
        metrics.batches.add(program=name, shape=f"{shape.rows}x{shape.length}")
        metrics.tokens.add(tokens)
        metrics.padding.add(shape.tokens - tokens)
        metrics.batch_seconds.observe(seconds, program=name)
        rate = tokens / max(seconds, 1e-6)
        self._rate = _SMOOTHING * self._rate + (1 - _SMOOTHING) * rate if self._rate else rate

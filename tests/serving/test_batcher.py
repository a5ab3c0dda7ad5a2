"""The batcher: how batches are closed, and who leaves the queue."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest
import serving

from modernbert_jax.inference.runner import Document
from modernbert_jax.serving.faults import Fault
from modernbert_jax.serving.service import Service
from modernbert_jax.serving.settings import Settings


@pytest.fixture(scope="module")
def embedding(tmp_path_factory) -> Service:
    folder = tmp_path_factory.mktemp("models")
    return serving.service("mean", folder, Settings(batch_tokens=128), real=False)


@contextlib.asynccontextmanager
async def started(made: Service, **settings) -> AsyncIterator[Service]:
    own = serving.like(made, Settings(batch_tokens=128, **settings))
    own.programs.batches.clear()
    own.batcher.start()
    try:
        yield own
    finally:
        own.programs.gate.set()
        await own.batcher.close()


def documents(*lengths: int) -> list[Document]:
    return [Document(list(range(n))) for n in lengths]


def waiting(made: Service) -> tuple[int, int]:
    lines = dict(line.split() for line in made.metrics.text().splitlines() if line[0] != "#")
    return int(lines["modernbert_jax_queue_texts"]), int(lines["modernbert_jax_queue_tokens"])


async def submitted(made: Service, *lengths: int) -> asyncio.Task:
    task = asyncio.create_task(made.batcher.submit("main", documents(*lengths)))
    await asyncio.sleep(0)
    return task


async def computing(made: Service, *lengths: int) -> asyncio.Task:
    """Documents whose batch the device holds until the gate is set."""
    made.programs.gate.clear()
    task = await submitted(made, *lengths)
    while not made.programs.batches:
        await asyncio.sleep(0.001)
    return task


def test_results_are_in_order_and_requests_share_batches(embedding):
    async def main() -> None:
        async with started(embedding, wait_ms=50) as made:
            lane = made.programs.lanes["main"]
            lengths = [(5, 7), (3,), (9, 2, 4)]
            tasks = [await submitted(made, *of) for of in lengths]
            for of, task in zip(lengths, tasks, strict=True):
                for got, document in zip(await task, documents(*of), strict=True):
                    np.testing.assert_array_equal(got, serving.vector(lane, document))
            assert len(made.programs.batches) == 1

    asyncio.run(main())


def test_a_full_batch_does_not_wait_and_others_wait_shortly(embedding):
    async def main() -> None:
        async with started(embedding, wait_ms=600_000) as made:
            await asyncio.wait_for(await submitted(made, 64, 64), 60)
        async with started(embedding, wait_ms=200) as made:
            began = time.monotonic()
            await (await submitted(made, 64))
            assert time.monotonic() - began > 0.19

    asyncio.run(main())


def test_documents_gather_while_the_device_computes(embedding):
    async def main() -> None:
        async with started(embedding, wait_ms=0) as made:
            first = await computing(made, 5)
            rest = [await submitted(made, 5) for _ in range(10)]
            made.programs.gate.set()
            await asyncio.gather(first, *rest)
            assert [len(batch) for batch in made.programs.batches] == [1, 10]

    asyncio.run(main())


def test_cancelled_documents_leave_the_queue(embedding):
    async def main() -> None:
        async with started(embedding, wait_ms=0) as made:
            running = await computing(made, 3)
            gone, stays = await submitted(made, 11, 12), await submitted(made, 13)
            assert waiting(made) == (3, 36)
            gone.cancel()
            await asyncio.sleep(0)
            assert waiting(made) == (1, 13)
            made.programs.gate.set()
            await asyncio.gather(running, stays)
            assert [[len(d) for d in batch] for batch in made.programs.batches] == [[3], [13]]

    asyncio.run(main())


def test_a_full_queue_refuses(embedding):
    async def main() -> None:
        async with started(embedding, wait_ms=0, queue_tokens=100) as made:
            running = await computing(made, 120)  # alone it may be larger than the queue
            queued = await submitted(made, 90)
            with pytest.raises(Fault) as refused:
                await made.batcher.submit("main", documents(20))
            assert refused.value.status == 429 and 1 <= refused.value.retry_after <= 60
            more = await submitted(made, 10)
            made.programs.gate.set()
            await asyncio.gather(running, queued, more)

    asyncio.run(main())


def test_a_failed_batch_fails_its_requests_only(embedding):
    async def main() -> None:
        async with started(embedding, wait_ms=0) as made:
            made.programs.error = RuntimeError("out of memory")
            with pytest.raises(RuntimeError):
                await (await submitted(made, 100, 100, 100))
            assert waiting(made) == (0, 0)
            made.programs.error = None
            assert len(await (await submitted(made, 5))) == 1

    asyncio.run(main())


def test_the_end_finishes_what_was_taken(embedding):
    async def main() -> None:
        async with started(embedding, wait_ms=60_000) as made:
            tasks = [await submitted(made, 5) for _ in range(50)]
            await made.batcher.close()
            assert all(task.done() for task in tasks)
            with pytest.raises(Fault, match="shutting down"):
                await made.batcher.submit("main", documents(5))

    asyncio.run(main())


def test_documents_without_tokens_have_zeros(embedding):
    async def main() -> None:
        async with started(embedding) as made:
            (alone,) = await (await submitted(made, 0))
            assert alone.shape == (32,) and not alone.any()
            some = await (await submitted(made, 0, 5))
            assert not some[0].any() and some[1].any()
            (tokens,) = await made.batcher.submit("tokens", documents(0))
            assert tokens.shape == (0, 32)

    asyncio.run(main())

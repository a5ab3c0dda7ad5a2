"""sentence-transformers behind an application of the same kind: `python -P peer.py MODEL PORT`.

Requests gather in a queue; a batch takes up to 32 texts, or what came within some milliseconds, and
`encode` sorts and pads it. The process imports nothing of this package.
"""

import asyncio
import sys
import time
from typing import Any

BATCH = 32
"""Texts of a batch: the default of sentence-transformers."""

WAIT = 0.003
"""Seconds that a batch waits for more texts, as in our server."""


def make_app(model: Any) -> Any:
    """The application around a `SentenceTransformer`."""
    import contextlib

    import orjson
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    queue: asyncio.Queue[tuple[str, asyncio.Future]] = asyncio.Queue()

    async def work() -> None:
        while True:
            batch = [await queue.get()]
            end = time.monotonic() + WAIT
            while len(batch) < BATCH:
                try:
                    left = max(end - time.monotonic(), 0)
                    item = queue.get_nowait() if queue.qsize() else await asyncio.wait_for(
                        queue.get(), left
                    )  # fmt: skip
                except TimeoutError:
                    break
                batch.append(item)
            texts = [text for text, _ in batch]
            vectors = await asyncio.to_thread(
                model.encode,
                texts,
                batch_size=BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
            )
            for (_, future), vector in zip(batch, vectors, strict=True):
                future.set_result(vector)

    async def embed(request: Any) -> Any:
        texts = orjson.loads(await request.body())["inputs"]
        futures = [asyncio.get_running_loop().create_future() for _ in texts]
        for text, future in zip(texts, futures, strict=True):
            queue.put_nowait((text, future))
        vectors = await asyncio.gather(*futures)
        body = orjson.dumps(vectors, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(body, media_type="application/json")

    async def health(request: Any) -> Any:
        return Response(b"{}", media_type="application/json")

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> Any:
        task = asyncio.create_task(work())
        yield
        task.cancel()

    routes = [Route("/embed", embed, methods=["POST"]), Route("/health", health)]
    return Starlette(routes=routes, lifespan=lifespan)


def main(model: str, port: int) -> None:
    """Serve until the process is ended."""
    import uvicorn
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(model, device="cpu")
    uvicorn.run(make_app(loaded), host="127.0.0.1", port=port, access_log=False, backlog=4096)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

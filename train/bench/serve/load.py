"""Load: requests over a fixed number of connections, each with the next as soon as one is answered.

The client is a few lines over asyncio's streams, because the usual ones take longer for a request
than a small model does.
"""

import asyncio
import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np

TIMEOUT = 120.0
"""Seconds after which a request counts as lost."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a load has found."""

    seconds: float
    """From the first request to the last response."""
    latencies: list[float]
    """Seconds of each request that was answered with status 200, in the order of their ends."""
    bodies: dict[int, bytes]
    """Body of the response to each request that was kept, by the request's number."""
    lost: int
    """Requests without such an answer."""

    @property
    def per_second(self) -> float:
        """Answered requests per second."""
        return len(self.latencies) / self.seconds

    def percentile(self, share: float) -> float:
        """A percentile of the latencies, in milliseconds."""
        return 1e3 * float(np.percentile(self.latencies, share)) if self.latencies else np.nan


def drive(port: int, path: str, bodies: Sequence[bytes], connections: int, keep: int = 0) -> Result:
    """Send all bodies to a server on this machine.

    Args:
        port: of the server.
        path: of the route.
        bodies: JSON of the requests.
        connections: requests at the same time.
        keep: the first requests whose responses are kept.
    """
    return asyncio.run(_drive(port, path, bodies, connections, keep))


async def _drive(
    port: int, path: str, bodies: Sequence[bytes], connections: int, keep: int
) -> Result:
    numbers: Iterator[int] = iter(range(len(bodies)))
    latencies: list[float] = []
    kept: dict[int, bytes] = {}

    async def client() -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for number in numbers:
            began = time.perf_counter()
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", port)
                work = _ask(*connection, path, bodies[number])
                status, body = await asyncio.wait_for(work, TIMEOUT)
            except (OSError, EOFError, ValueError, TimeoutError):
                connection = None
                continue
            if status == 200:
                latencies.append(time.perf_counter() - began)
                if number < keep:
                    kept[number] = body
        if connection is not None:
            connection[1].close()

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(connections)))
    seconds = time.perf_counter() - began
    return Result(
        seconds=seconds, latencies=latencies, bodies=kept, lost=len(bodies) - len(latencies)
    )


async def _ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, body: bytes
) -> tuple[int, bytes]:
    """Status and body of one request. Raises `EOFError` or `ValueError` for a broken answer."""
    writer.write(
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in head[1:] if ": " in line)
    return int(head[0].split()[1]), await reader.readexactly(int(headers["content-length"]))

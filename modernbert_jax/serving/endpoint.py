"""Endpoints: a request is admitted, read, answered within its time, and counted.

The body of a request appears in no log, and neither does the message of an unexpected error, which
may quote it.
"""

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from .faults import Fault, overloaded, too_large
from .fields import Fields
from .service import Service

LOG = logging.getLogger("modernbert_jax.serving")

CLIENT_GONE = 499
"""Status in logs and metrics of a request whose client went away, as other servers have it."""

Answer = Callable[[Service, Fields], Awaitable[Any]]
"""A function of the service and a request's fields; returns what becomes JSON, or a response."""


def json_response(
    content: Any, status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """A response of JSON; float32 arrays are written with as many digits as they have."""
    if isinstance(content, Response):
        return content
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, headers, "application/json")


def fault_response(fault: Fault, path: str) -> Response:
    """The response of a refusal, in the dialect of the route."""
    status, body = fault.answer(openai=path.startswith("/v1/"))
    return json_response(body, status, fault.headers)


class Admission:
    """Limits on the requests that are worked on at the same time, and on the bytes of them."""

    def __init__(self, service: Service):
        self._service, self.requests, self.bytes = service, 0, 0
        service.metrics.gauge("requests_in_flight", "Requests now.", lambda: self.requests)

    @contextlib.contextmanager
    def admitted(self) -> Iterator["_Admitted"]:
        """A place for a request. Raises `Fault` if there are too many."""
        if self.requests >= self._service.settings.queue_requests:
            message = f"{self.requests:,} requests are worked on already; try again later"
            raise overloaded(message, self._service.batcher.retry_after())
        self.requests += 1
        admitted = _Admitted(self, self._service)
        try:
            yield admitted
        finally:
            self.requests -= 1
            self.bytes -= admitted.bytes


class _Admitted:
    """A request with a place."""

    def __init__(self, admission: Admission, service: Service):
        self._admission, self._service, self.bytes = admission, service, 0

    async def body(self, request: Request) -> bytes:
        """The body of the request. Raises `Fault` if it is too large."""
        parts: list[bytes] = []
        length = request.headers.get("content-length", "")
        if length.isdecimal():
            self._check(int(length))
        async for part in request.stream():
            self._check(self.bytes + len(part))
            self.bytes += len(part)
            self._admission.bytes += len(part)
            parts.append(part)
        return b"".join(parts)

    def _check(self, size: int) -> None:
        settings = self._service.settings
        if size > settings.max_bytes:
            raise too_large(f"the body has more than {settings.max_bytes:,} bytes")
        if self._admission.bytes - self.bytes + size > settings.queue_bytes:
            retry = self._service.batcher.retry_after()
            raise overloaded("the bodies of other requests fill the memory; try again later", retry)


class Endpoints:
    """Makes endpoints of answers, all with one admission."""

    def __init__(self, service: Service):
        self._service, self._admission = service, Admission(service)

    def post(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint that reads a JSON object."""

        async def endpoint(request: Request) -> Response:
            with self._admission.admitted() as admitted:
                return json_response(await self._in_time(request, answer, admitted))

        return self._guarded(endpoint)

    def get(
        self, answer: Callable[[Service, Request], Any]
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint without a body."""

        async def endpoint(request: Request) -> Response:
            return json_response(answer(self._service, request))

        return self._guarded(endpoint)

    def _guarded(
        self, endpoint: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        """An endpoint whose errors become responses."""

        async def guarded(request: Request) -> Response:
            try:
                return await endpoint(request)
            except Fault as fault:
                return fault_response(fault, request.url.path)
            except ClientDisconnect:
                self._service.metrics.abandoned.add()
                return Response(status_code=CLIENT_GONE)
            except Exception as error:
                LOG.error("%s at %s", type(error).__name__, place(error))
                failed = Fault(500, "the server failed; its log says where", "Backend")
                return fault_response(failed, request.url.path)

        return guarded

    async def _in_time(self, request: Request, answer: Answer, admitted: _Admitted) -> Any:
        """The answer to a request, unless its time is up or its client goes away."""
        seconds = self._service.settings.timeout
        end = time.monotonic() + seconds
        try:
            body = await asyncio.wait_for(admitted.body(request), seconds)
        except TimeoutError:
            raise Fault(408, f"the body took longer than {seconds:g} s") from None
        work = asyncio.ensure_future(answer(self._service, Fields.parse(body)))
        gone = asyncio.ensure_future(_gone(request))
        try:
            await asyncio.wait(
                {work, gone},
                timeout=max(end - time.monotonic(), 0),
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                return work.result()
            if gone.done():
                raise ClientDisconnect
            retry = self._service.batcher.retry_after()
            message = f"no answer within {seconds:g} s; try again later"
            raise Fault(503, message, "Overloaded", retry_after=retry)
        finally:
            for task in (work, gone):
                if not task.done():
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, Exception):
                        await task


async def _gone(request: Request) -> None:
    """Wait until the client goes away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def place(error: BaseException) -> str:
    """Where an error was raised, without its message."""
    frames = traceback.extract_tb(error.__traceback__)
    return ", ".join(f"{frame.filename}:{frame.lineno}" for frame in frames[-3:])

"""Around every request: the API key, the access log and the counts.

The log has method, path, status and time of a request; neither its body nor its query string.
"""

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from modernbert_jax.errors import UserError

from .endpoint import CLIENT_GONE, fault_response
from .faults import Fault
from .metrics import Metrics

ACCESS = logging.getLogger("modernbert_jax.serving.access")

KEY_VARIABLE = "MODERNBERT_JAX_API_KEY"
"""Environment variable with the API key, where no file is given."""

OPEN = frozenset({"/health", "/ready"})
"""Paths that need no key; neither does the page, which is GET /."""


def keys_from(path: Path | None, environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """The API keys: the lines of a file, or the one of the environment; none is no protection.

    Raises:
        UserError: a file that cannot be read, is empty, or has a key with spaces or other letters
            than ASCII's.
    """
    if path is None:
        lines, origin = [environment.get(KEY_VARIABLE, "")], KEY_VARIABLE
    else:
        origin = str(path)
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
            raise UserError(f"{path}: API keys cannot be read: {reason}") from None
    keys = tuple(filter(None, (line.strip() for line in lines)))
    if path is not None and not keys:
        raise UserError(f"{path}: has no API key; write one per line")
    for number, key in enumerate(keys):
        if not key.isascii() or not key.isprintable() or " " in key:
            raise UserError(f"{origin}: key {number + 1} must be ASCII letters without spaces")
    return keys


class Guard:
    """Middleware that checks keys, logs and counts."""

    def __init__(
        self, app: ASGIApp, metrics: Metrics, keys: Collection[str], routes: Collection[str]
    ):
        """Middleware around an application.

        Args:
            app: the application.
            metrics: where requests are counted.
            keys: any of which a request needs; none lets every request pass.
            routes: paths that are counted by their name; others are counted together.
        """
        self._app, self._metrics, self._routes = app, metrics, frozenset(routes)
        self._digests = [_digest(key.encode()) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), CLIENT_GONE

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if self._allowed(scope):
                await self._app(scope, receive, watched)
            else:
                fault = Fault(401, "the API key is missing or wrong", code="invalid_api_key")
                await fault_response(fault, scope["path"])(scope, receive, watched)
        finally:
            self._count(scope, status, time.perf_counter() - began)

    def _allowed(self, scope: Scope) -> bool:
        is_page = scope["path"] == "/" and scope["method"] in ("GET", "HEAD")
        if not self._digests or scope["path"] in OPEN or is_page:
            return True
        header = next((v for k, v in scope["headers"] if k == b"authorization"), b"")
        kind, _, key = header.partition(b" ")
        own = _digest(key.strip())
        # Digests have one length, and all of them are compared, so the time says nothing.
        matches = [hmac.compare_digest(own, digest) for digest in self._digests]
        return any(matches) and kind.lower() == b"bearer"

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        route = path if path in self._routes else "other"
        self._metrics.requests.add(route=route, status=str(status))
        self._metrics.seconds.observe(seconds, route=route)
        ACCESS.info("%s %s %d %.1f ms", scope["method"], route, status, 1e3 * seconds)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()

"""A running server: its socket, signals, log, and a graceful end."""

import logging
import signal
import socket
import sys
from collections.abc import Collection
from types import FrameType
from typing import Any

import uvicorn

from modernbert_jax.errors import UserError

from .app import create_app
from .endpoint import place
from .service import Service

BACKLOG = 4096
"""Connections that wait to be accepted at most."""

_KEEP_ALIVE = 30
"""Seconds after which an idle connection is closed; longer than most proxies' reuse of it."""


def bind(host: str, port: int) -> socket.socket:
    """A socket at an address; nothing can connect to it before it listens.

    Raises:
        UserError: the address is unknown, taken or not allowed.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot serve at {host}:{port}: {reason}; pass --host and --port"
        ) from None
    return bound


def address(bound: socket.socket) -> str:
    """The URL of a bound socket."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def allow_connections() -> None:
    """Raise this process's limit of open files to the most that it may set."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def make_server(
    service: Service, keys: Collection[str] = (), grace: float = 30.0
) -> uvicorn.Server:
    """A server of a service whose programs are compiled; `run(sockets=[...])` serves.

    Args:
        service: the model with its limits.
        keys: API keys; see `create_app`.
        grace: seconds that accepted requests have to finish after SIGTERM or SIGINT.
    """
    config = uvicorn.Config(
        create_app(service, keys),
        log_config=None,
        access_log=False,  # it would log query strings
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=max(int(grace), 1),
        server_header=False,
        ws="none",
        lifespan="on",
    )
    return uvicorn.Server(config)


def serve(server: uvicorn.Server, bound: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT, and finish accepted requests; a second signal ends at once."""

    def ignore(number: int, frame: FrameType | None) -> Any:
        """uvicorn handles signals while it runs, and raises them again when it has ended."""

    before = {number: signal.signal(number, ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        server.run(sockets=[bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if not server.started:
        raise RuntimeError("the server did not start")


class _Formatter(logging.Formatter):
    """Lines without the messages of exceptions, which may quote requests."""

    def formatException(self, ei: Any) -> str:
        return f"{type(ei[1]).__name__} at {place(ei[1])}" if ei and ei[1] else ""


def log_to_stderr(access: bool) -> None:
    """Write the server's log, and with `access` a line for each request, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (
        ("modernbert_jax.serving", logging.INFO),
        ("modernbert_jax.serving.access", logging.INFO if access else logging.WARNING),
        ("uvicorn.error", logging.WARNING),
    ):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if name != "modernbert_jax.serving.access":  # it passes lines on
            logger.addHandler(handler)
            logger.propagate = False

"""Routes for those who run the server: health, readiness, metrics, and the page."""

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from .faults import Fault
from .service import Service

PAGE = Path(__file__).with_name("page.html")
"""The page at /: HTML with its styles and script, without a build."""

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline';"
    " connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none';"
    " frame-ancestors 'none'"
)


def health(service: Service, request: Request) -> dict[str, Any]:
    """Whether requests are worked on. Raises `Fault` otherwise."""
    if not service.batcher.alive:
        raise Fault(503, "no batches are worked on; restart the server", "Unhealthy")
    return {"status": "ok"}


def ready(service: Service, request: Request) -> dict[str, Any]:
    """Whether new requests are taken. Raises `Fault` otherwise."""
    if service.batcher.closing or not service.batcher.alive:
        raise Fault(503, "the server is shutting down", "Unhealthy")
    return {"status": "ready"}


def metrics(service: Service, request: Request) -> Response:
    """All numbers of the server, for Prometheus."""
    return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def page(service: Service, request: Request) -> Response:
    """The page on which a person can try the model."""
    headers = {
        "content-security-policy": _POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return Response(PAGE.read_bytes(), headers=headers, media_type="text/html; charset=utf-8")

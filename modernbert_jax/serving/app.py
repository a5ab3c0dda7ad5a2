"""The ASGI application of a service."""

import contextlib
from collections.abc import AsyncIterator, Collection

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import hugging_face, openai, operations, tei
from .endpoint import Endpoints, fault_response
from .faults import Fault
from .guard import Guard
from .service import Service

POSTS = {
    "/v1/embeddings": openai.embeddings,
    "/embed": tei.embed,
    "/embed_all": tei.embed_all,
    "/embed_sparse": tei.embed_sparse,
    "/rerank": tei.rerank,
    "/predict": tei.predict,
    "/similarity": hugging_face.similarity,
    "/fill-mask": hugging_face.fill_mask,
    "/token-classification": hugging_face.token_classification,
    "/question-answering": hugging_face.question_answering,
    "/tokenize": tei.tokenize,
    "/decode": tei.decode,
    "/": hugging_face.root,
}
"""Answers to POST, by path."""

GETS = {
    "/": operations.page,
    "/v1/models": openai.models,
    "/v1/models/{name:path}": openai.model,
    "/info": tei.info,
    "/health": operations.health,
    "/ready": operations.ready,
    "/metrics": operations.metrics,
}
"""Answers to GET, by path."""


def create_app(service: Service, keys: Collection[str] = ()) -> Starlette:
    """The application of a service whose programs are compiled.

    Its lifespan starts the batcher, and at the end finishes what was accepted.

    Args:
        service: the model with its limits.
        keys: API keys, any of which a request needs; none lets every request pass.
    """
    endpoints = Endpoints(service)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.batcher.start()
        try:
            yield
        finally:
            await service.batcher.close()

    routes = [
        *(Route(path, endpoints.post(answer), methods=["POST"]) for path, answer in POSTS.items()),
        *(Route(path, endpoints.get(answer), methods=["GET"]) for path, answer in GETS.items()),
    ]
    guard = Middleware(Guard, metrics=service.metrics, keys=keys, routes=frozenset({*POSTS, *GETS}))
    return Starlette(
        routes=routes,
        middleware=[guard],
        lifespan=lifespan,
        exception_handlers={HTTPException: _refused},
    )


async def _refused(request: Request, error: Exception) -> Response:
    """What Starlette refuses itself: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    reasons = {404: "there is no such path", 405: "this path does not take this method"}
    message = reasons.get(error.status_code, "the request cannot be read")
    response = fault_response(Fault(error.status_code, message), request.url.path)
    response.headers.update(error.headers or {})
    return response

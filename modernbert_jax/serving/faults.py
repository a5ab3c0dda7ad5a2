"""Refusals of requests: their status, and their bodies as the clients of two dialects expect.

OpenAI's clients read {"error": {"message", "type", "param", "code"}}, and know status 400 for what
is wrong in a request. Those of text-embeddings-inference read {"error", "error_type"}.
"""

from typing import Any, Literal

from modernbert_jax.errors import clipped

Kind = Literal["Validation", "Tokenizer", "Backend", "Overloaded", "Unhealthy"]
"""Types of errors in text-embeddings-inference."""

_MESSAGE = 500
"""Characters of a message at most, of which some may be the request's."""

_OPENAI_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}
"""Types of errors in OpenAI's dialect by status; others are `invalid_request_error`."""


class Fault(Exception):
    """A request that cannot be answered as asked."""

    def __init__(
        self,
        status: int,
        message: str,
        kind: Kind = "Validation",
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ):
        """A refusal.

        Args:
            status: of HTTP.
            message: the reason and the remedy.
            kind: type of the error.
            param: the field of the request that is wrong.
            code: OpenAI's name of the reason.
            retry_after: seconds after which the client may try again.
        """
        super().__init__(message)
        self.status, self.kind, self.param, self.code = status, kind, param, code
        self.message, self.retry_after = clipped(message, _MESSAGE), retry_after

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the response besides its content type."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})

    def answer(self, openai: bool) -> tuple[int, dict[str, Any]]:
        """Status and body of the response, in OpenAI's dialect or in the other one."""
        if not openai:
            return self.status, {"error": self.message, "error_type": self.kind}
        status = 400 if self.status in (422, 424) else self.status
        error = {
            "message": self.message,
            "type": _OPENAI_TYPES.get(status, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }
        return status, {"error": error}


def invalid(param: str, message: str) -> Fault:
    """A field of the request has a wrong value."""
    return Fault(422, f"{param} {message}", param=param)


def too_large(message: str, param: str | None = None) -> Fault:
    """A request is larger than the server's limits."""
    return Fault(413, message, param=param)


def unsupported(message: str) -> Fault:
    """The model cannot do this."""
    return Fault(424, message, "Backend")


def overloaded(message: str, retry_after: int) -> Fault:
    """The queue is full."""
    return Fault(429, message, "Overloaded", retry_after=retry_after)

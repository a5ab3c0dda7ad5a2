"""Routes of OpenAI's dialect: /v1/embeddings and /v1/models."""

import base64
import time
from typing import Any

import numpy as np
from starlette.requests import Request

from modernbert_jax.errors import UserError, did_you_mean

from .faults import Fault
from .fields import Fields
from .reading import Reading
from .service import Service

_OWNER = "modernbert-jax"


async def embeddings(service: Service, fields: Fields) -> dict[str, Any]:
    """Vectors of texts or token ids; of late interaction one for each token.

    Beside OpenAI's fields there are normalize (default true), truncate, prompt_name and is_query.
    Vectors of tokens have an item `shape` that says how base64 is laid out.
    """
    inputs, _ = fields.inputs("input")
    fields.optional("model", str)
    fields.optional("user", str)
    encoding = fields.choice("encoding_format", ("float", "base64"), "float")
    reading = Reading.of(fields)
    late = service.kind == "late-interaction"
    if late:
        if "dimensions" in fields:
            raise Fault(400, "dimensions are not for late interaction", param="dimensions")
        vectors, tokens = await service.token_vectors(inputs, reading)
    else:
        dimensions = fields.count("dimensions", 2**20)
        normalize = fields.get("normalize", bool, True)
        vectors, tokens = await service.vectors(inputs, reading, normalize, dimensions)
    data = [
        {"object": "embedding", "index": i, "embedding": _encoded(vector, encoding)}
        | ({"shape": list(vector.shape)} if late else {})
        for i, vector in enumerate(vectors)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "data": data, "model": service.name, "usage": usage}


def models(service: Service, request: Request) -> dict[str, Any]:
    """The list of models: the one that is served."""
    return {"object": "list", "data": [_model(service)]}


def model(service: Service, request: Request) -> dict[str, Any]:
    """The served model by its name. Raises `Fault` for another one."""
    name = request.path_params["name"]
    if name != service.name:
        hint = did_you_mean(name, [service.name])
        message = str(UserError(f"no model {name!r}; {hint}"))
        raise Fault(404, message, param="model", code="model_not_found")
    return _model(service)


def _model(service: Service) -> dict[str, Any]:
    return {"id": service.name, "object": "model", "created": _STARTED, "owned_by": _OWNER}


_STARTED = int(time.time())


def _encoded(vector: np.ndarray, encoding: str) -> np.ndarray | str:
    if encoding == "float":
        return vector
    return base64.b64encode(np.ascontiguousarray(vector, "<f4").tobytes()).decode()

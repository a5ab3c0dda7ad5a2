"""Routes with the names and fields of text-embeddings-inference."""

import asyncio
from typing import Any

import numpy as np
from starlette.requests import Request

import modernbert_jax
from modernbert_jax.errors import UserError

from .faults import Fault, invalid
from .fields import Fields
from .reading import Reading
from .service import Service


async def embed(service: Service, fields: Fields) -> Any:
    """Vectors of texts, of length 1 unless `normalize` is false."""
    inputs, _ = fields.inputs("inputs")
    normalize = fields.get("normalize", bool, True)
    dimensions = fields.count("dimensions", 2**20)
    fields.choice("encoding_format", ("float",), "float")
    vectors, _ = await service.vectors(inputs, Reading.of(fields), normalize, dimensions)
    return vectors


async def embed_all(service: Service, fields: Fields) -> Any:
    """Vectors of the tokens of texts; those of late interaction as queries with `is_query`."""
    inputs, _ = fields.inputs("inputs")
    vectors, _ = await service.token_vectors(inputs, Reading.of(fields))
    return vectors


async def embed_sparse(service: Service, fields: Fields) -> Any:
    """Sparse vectors of texts, as lists of index and value."""
    inputs, _ = fields.inputs("inputs")
    vectors, _ = await service.sparse_vectors(inputs, Reading.of(fields))
    return [
        [
            {"index": index, "value": value}
            for index, value in zip(v.indices.tolist(), v.values.tolist(), strict=True)
        ]
        for v in vectors
    ]


async def rerank(service: Service, fields: Fields) -> Any:
    """Texts in the order of their relevance to a query."""
    query, texts = fields.get("query", str), fields.texts("texts")
    raw, with_text = (fields.get(name, bool, False) for name in ("raw_scores", "return_text"))
    ranking = await service.ranking(query, texts, Reading.of(fields), raw)
    return [
        {"index": i, "score": score} | ({"text": texts[i]} if with_text else {})
        for i, score in ranking
    ]


async def predict(service: Service, fields: Fields) -> Any:
    """Labels of texts or pairs with their scores, the highest first.

    A request with `parameters` comes from Hugging Face's client, which expects a list in a list for
    a single text, too.
    """
    inputs, single = fields.sequences("inputs")
    parameters = fields.object("parameters")
    apply = parameters.choice("function_to_apply", ("none", "sigmoid", "softmax", "own"), "own")
    top_k = parameters.count("top_k", 2**31) or len(service.labels)
    raw = fields.get("raw_scores", bool, False) or apply != "own"
    scores, _ = await service.scores(inputs, Reading.of(fields), raw)
    if apply in ("sigmoid", "softmax"):
        powers = np.exp(scores - (scores.max(-1, keepdims=True) if apply == "softmax" else 0))
        total = powers.sum(-1, keepdims=True) if apply == "softmax" else 1 + powers
        scores = np.where(np.isinf(powers), 1.0, powers / total)
    predictions = [
        [
            {"label": service.labels[i], "score": float(of_text[i])}
            for i in np.argsort(-of_text, kind="stable")[:top_k]
        ]
        for of_text in scores
    ]
    return predictions[0] if single and not fields.is_object("parameters") else predictions


async def tokenize(service: Service, fields: Fields) -> Any:
    """Tokens of texts, with their ids and places in the text."""
    value = fields.get("inputs", str) if not isinstance(fields.raw("inputs"), list) else None
    texts = [value] if value is not None else fields.texts("inputs")
    special = fields.get("add_special_tokens", bool, True)
    service.reader.check_count(len(texts))
    prompt = service.bert.pipeline.prompts if service.bert.pipeline else {}
    name = fields.optional("prompt_name", str)
    if name is not None and name not in prompt:
        raise invalid("prompt_name", f"is not one of {', '.join(prompt) or 'none'}")
    prefix = prompt[name] if name is not None else ""
    return await asyncio.get_running_loop().run_in_executor(
        None, _tokens, service, [prefix + text for text in texts], special
    )


async def decode(service: Service, fields: Fields) -> Any:
    """Texts of token ids."""
    ids = fields.raw("ids")
    several = ids if isinstance(ids, list) and ids and isinstance(ids[0], list) else [ids]
    known = range(service.bert.config.vocab_size)
    for one in several:
        if not isinstance(one, list) or not all(type(i) is int and i in known for i in one):
            raise invalid("ids", "must be a list of token ids, or a list of such lists")
    service.reader.check_count(len(several))
    skip = fields.get("skip_special_tokens", bool, True)
    tokenizer = service.reader.tokenizer
    return await asyncio.get_running_loop().run_in_executor(
        None, lambda: [tokenizer.decode(one, skip_special=skip) for one in several]
    )


def info(service: Service, request: Request) -> dict[str, Any]:
    """What is served, and with which limits."""
    settings, bert = service.settings, service.bert
    full = max(shape.tokens for shape in service.programs.shapes["main"])
    return {
        "model_id": service.name,
        "model_sha": None,
        "model_dtype": str(bert.module.runtime.dtype),
        "model_type": _model_type(service),
        "kind": service.kind,
        "fills_masks": service.fills_masks,
        "mask_token": _mask_token(service),
        "max_concurrent_requests": settings.queue_requests,
        "max_input_length": service.reader.longest,
        "max_batch_tokens": full,
        "max_client_batch_size": settings.max_texts,
        "auto_truncate": settings.auto_truncate,
        "tokenization_workers": 1,
        "version": modernbert_jax.__version__,
    }


def _model_type(service: Service) -> dict[str, Any]:
    if service.kind in ("reranker", "classifier", "token-classifier", "question-answering"):
        labels = dict(enumerate(service.labels))
        described = {
            "id2label": {str(i): label for i, label in labels.items()},
            "label2id": {label: i for i, label in labels.items()},
        }
        return {service.kind.replace("-", "_"): described}
    pipeline = service.bert.pipeline
    own = pipeline.pooling if pipeline else None
    names = {"late-interaction": "none", "sparse": "splade"}
    pooling = names.get(service.kind) or ("+".join(own.modes) if own else "mean")
    return {"embedding": {"pooling": pooling}}


def _mask_token(service: Service) -> str | None:
    mask = service.reader.tokenizer.role_id("mask")
    return None if mask is None else service.reader.tokenizer.token(mask)


def _tokens(service: Service, texts: list[str], special: bool) -> list[list[dict[str, Any]]]:
    try:
        encodings = service.reader.tokenizer.backend.encode_batch(texts, add_special_tokens=special)
    except UserError as error:
        raise Fault(422, str(error), "Tokenizer") from None
    service.reader.check_tokens(sum(len(encoding.ids) for encoding in encodings))
    return [
        [
            {"id": i, "text": token, "special": True, "start": None, "stop": None}
            if is_special
            else {"id": i, "text": text[start:stop], "special": False, "start": start, "stop": stop}
            for i, token, is_special, (start, stop) in zip(
                e.ids, e.tokens, e.special_tokens_mask, e.offsets, strict=True
            )
        ]
        for e, text in zip(encodings, texts, strict=True)
    ]

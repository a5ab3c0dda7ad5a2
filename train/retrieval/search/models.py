"""Models with the options of a command."""

import dataclasses

from modernbert_jax import convert
from modernbert_jax.inference.text_model import Encoding

from ..encoding import PairScorer, TextEncoder
from ..retriever import Retriever
from .config import Encoders


def encoder_of(options: Encoders, model: str) -> TextEncoder:
    """An embedding model with the options of a command. Raises `UserError`."""

    def encoding(prompt: str | None, length: int | None) -> Encoding:
        width = options.dims or None
        return Encoding(pooling=options.pooling, prompt=prompt, max_length=length, width=width)

    encoder = TextEncoder.load(
        model,
        encoding(options.query_prompt, options.query_length or options.max_length),
        encoding(options.corpus_prompt, options.max_length),
        dtype=options.dtype,
        batch_tokens=options.batch_tokens,
    )
    if options.similarity is None:
        return encoder
    return dataclasses.replace(encoder, similarity=options.similarity)


def model_of(options: Encoders, model: str) -> Retriever | PairScorer:
    """A reranker or an embedding model, whichever the files hold. Raises `UserError`."""
    checkpoint = convert.load(convert.locate(model), later=True)
    kind = checkpoint.pipeline.kind if checkpoint.pipeline else checkpoint.head
    if kind in ("reranker", "sequence_classification"):
        return scorer_of(options, model)
    return encoder_of(options, model)


def scorer_of(options: Encoders, model: str) -> PairScorer:
    """A reranker with the options of a command. Raises `UserError`."""
    return PairScorer.load(
        model, options.max_length, dtype=options.dtype, batch_tokens=options.batch_tokens
    )
